"""``train.language`` in this process, small: text parts, the model's causality, learning, resume, faults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_model

from core.contracts.errors import UserError
from core.train import text_data
from core.train.language_model import LanguageModel, LanguageModelConfig, generate
from core.train.tasks.language import LanguageTrainingSpec, check, run
from tests.helpers.recording_context import RecordingContext

SENTENCE = "the quick brown fox jumps over the lazy dog. "


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(SENTENCE * 200)
    return path


def tiny(text: Path, **fields: object) -> LanguageTrainingSpec:
    values = {
        "kind": "train.language",
        "data": str(text),
        "num_layers": 1,
        "num_heads": 2,
        "hidden": 32,
        "context_bytes": 32,
        "steps": 40,
        "micro_batch": 8,
        "evaluate_every": 10,
        "device": "cpu",
        "prompt": "the quick ",
        "optimizer": {"lr": 0.02},
    }
    return msgspec.convert({**values, **fields}, LanguageTrainingSpec)


def test_the_standard_library_is_listed_the_same_way_each_time_without_foreign_packages() -> None:
    files = text_data.list_texts("stdlib")
    assert files == sorted(files)
    names = {path.name for path in files}
    assert {"argparse.py", "json", "decoder.py"} - names == {"json"}
    assert not any("site-packages" in path.parts or "test" in path.parts for path in files)


def test_whole_files_are_held_out_and_adding_one_moves_no_other(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"<{number}>")
    before = text_data.load_text(str(tmp_path), 0.2, 1 << 20)
    (tmp_path / "new.txt").write_text("<new>")
    after = text_data.load_text(str(tmp_path), 0.2, 1 << 20)
    held_out = set(before.validation.tobytes().split(b"\0"))
    assert 3 < len(held_out) < 25
    assert held_out.isdisjoint(before.train.tobytes().split(b"\0"))
    assert held_out <= set(after.validation.tobytes().split(b"\0"))


def test_one_file_is_cut_at_its_end_and_reading_is_bounded(text: Path) -> None:
    parts = text_data.load_text(str(text), 0.25, 4000)
    assert len(parts.train) + len(parts.validation) == 4000
    assert parts.train.tobytes() + parts.validation.tobytes() == (SENTENCE * 200).encode()[:4000]
    assert len(parts.validation) == 1000


def test_the_model_never_looks_ahead_and_positions_matter() -> None:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(num_layers=2, num_heads=2, hidden=16, context_bytes=12)).eval()
    text = torch.randint(0, 256, (1, 12))
    changed = text.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 256
    with torch.no_grad():
        first, second = model(text), model(changed)
        assert torch.equal(first[0, :7], second[0, :7])
        assert not torch.allclose(first[0, 7:], second[0, 7:])
        swapped = text[:, [1, 0, *range(2, 12)]]
        assert not torch.allclose(model(swapped)[0, -1], first[0, -1])
    assert model(text[:, :3]).shape == (1, 3, 256)


def test_generation_continues_the_prompt_beyond_the_context_and_is_repeatable() -> None:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(num_layers=1, num_heads=1, hidden=8, context_bytes=8)).eval()
    first, again, other = (generate(model, b"abc", 20, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first.startswith(b"abc")
    assert len(first) == 23
    assert first == again != other


def test_a_run_learns_and_leaves_weights_a_sample_and_its_score(text: Path, tmp_path: Path) -> None:
    context = RecordingContext(tmp_path / "home")
    spec = tiny(text)
    run(spec, context)
    losses = [value for _, value in context.curve("train/loss")]
    assert losses[0] == pytest.approx(math.log(256), rel=0.05)
    assert losses[-1] < 2.5
    bits = [value for _, value in context.curve("val/bits_per_byte")]
    assert len(bits) == 4
    assert context.results["val/bits_per_byte"] == min(bits) < bits[0]
    assert context.results["val/loss"] == pytest.approx(min(bits) * math.log(2))
    assert all(value > 0 for _, value in context.curve("train/tokens_per_s"))
    config = msgspec.json.decode((context.artifacts_dir / "model.json").read_bytes(), type=LanguageModelConfig)
    missing, unexpected = load_model(LanguageModel(config), Path(context.artifacts["model.language"].path))
    assert (set(missing), unexpected) == (set(), [])
    sample = Path(context.artifacts["text.sample"].path).read_text()
    assert sample.startswith("the quick ")
    assert ("info", sample) in context.logs


def test_a_stopped_run_resumes_with_the_losses_of_an_uninterrupted_one(text: Path, tmp_path: Path) -> None:
    spec = tiny(text, optimizer={"lr": 0.02, "grad_accum_steps": 2, "ema_decay": 0.8}, steps=24)
    whole, part = RecordingContext(tmp_path / "whole"), RecordingContext(tmp_path / "part")
    run(spec, whole)
    part.stop_after(13)
    run(spec, part)
    assert part.curve("train/loss")[-1][0] == 13
    resumed = part.next_attempt()
    run(spec, resumed)
    assert part.curve("train/loss") + resumed.curve("train/loss") == whole.curve("train/loss")
    assert resumed.results["val/loss"] == whole.results["val/loss"]


def test_check_and_run_say_what_is_wrong_with_the_text(text: Path, tmp_path: Path) -> None:
    assert check(tiny(text)) == ()
    text.write_text("short")
    (problem,) = check(tiny(text))
    assert "5 bytes" in problem.message
    with pytest.raises(UserError, match="too little text"):
        run(tiny(text), RecordingContext(tmp_path / "home"))
    missing = tiny(tmp_path / "gone", hidden=30)
    assert [problem.field for problem in check(missing)] == ["data", "hidden"]
    with pytest.raises(UserError, match="cannot be read"):
        run(missing, RecordingContext(tmp_path / "home"))
