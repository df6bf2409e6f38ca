"""``train.language`` in this process, small: learning, exports, resume, chats, adapters, other architectures, checks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from core.contracts.errors import UserError
from core.plugins.decode import decode_spec, read_spec
from core.settings.resources import examples_dir
from core.train.models.export_hf import save_model
from core.train.models.tokenizer import bpe_tokenizer, byte_tokenizer
from core.train.tasks.language import KIND, LanguageTrainingSpec, check
from tests.helpers.language_ranks import train_cases
from tests.helpers.rank_group import run_in_ranks
from tests.helpers.recording_context import RecordingContext

SENTENCE = "the quick brown fox jumps over the lazy dog. "
SMALL: dict[str, Any] = {
    "kind": "train.language",
    "steps": 30,
    "micro_batch": 8,
    "evaluate_every": 10,
    "device": "cpu",
    "model": {"layers": 1, "heads": 2, "hidden": 32, "context": 32},
    "generation": {"prompt": "the quick ", "new_tokens": 20},
    "optimizer": {"lr": 0.02},
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled:UserWarning",  # checkpoints of one process
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # asked for by peft
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(SENTENCE * 200)
    return path


def small(text: Path, **fields: Any) -> LanguageTrainingSpec:
    data = {"data": str(text), **fields.pop("data", {})}
    merged = {**SMALL, "data": data}
    for name, value in fields.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    spec = decode_spec(merged)
    assert isinstance(spec, LanguageTrainingSpec)
    return spec


def trained(spec: LanguageTrainingSpec, home: Path) -> RecordingContext:
    context = RecordingContext(home)
    assert KIND.rank_run is not None
    KIND.rank_run(spec, context)
    return context


def base_model(folder: Path, text: Path, home: Path) -> Path:
    """Return the folder of a model that a short training made."""
    context = trained(small(text, steps=10), home)
    return Path(context.artifacts["model.huggingface"].path).rename(folder)


def test_a_run_learns_and_leaves_a_model_that_transformers_loads(text: Path, tmp_path: Path) -> None:
    context = trained(small(text), tmp_path / "home")
    losses = [value for _, value in context.curve("train/loss")]
    assert losses[0] == pytest.approx(math.log(264), rel=0.15)
    assert losses[-1] < 2.5
    bits = [value for _, value in context.curve("val/bits_per_byte")]
    assert len(bits) == 3
    assert context.results["val/bits_per_byte"] == min(bits) < bits[0]
    assert context.results["val/perplexity"] == pytest.approx(math.exp(context.results["val/loss"]))
    assert all(value > 0 for _, value in context.curve("train/tokens_per_s"))
    folder = Path(context.artifacts["model.huggingface"].path)
    assert context.artifacts["model.huggingface"].meta["bits_per_byte"] == min(bits)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(SENTENCE[:32], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[0]
    # Positions that know some of the sentence predict it nearly as well as the validation says.
    assert functional.cross_entropy(logits[8:-1], ids[0, 9:]) < context.results["val/loss"] + 0.5
    sample = Path(context.artifacts["text.sample"].path).read_text()
    assert sample.startswith("the quick ")
    assert ("info", sample) in context.logs
    assert [step for step, _ in context.tables["Samples"].rows] == [10, 20, 30, 30]


def test_a_stopped_run_resumes_with_the_losses_of_an_uninterrupted_one(text: Path, tmp_path: Path) -> None:
    spec = small(text, optimizer={"grad_accum_steps": 2, "ema_decay": 0.8}, steps=16)
    whole = trained(spec, tmp_path / "whole")
    part = RecordingContext(tmp_path / "part")
    part.stop_after(9)
    assert KIND.rank_run is not None
    KIND.rank_run(spec, part)
    assert 9 <= part.curve("train/loss")[-1][0] < 16
    resumed = part.next_attempt()
    KIND.rank_run(spec, resumed)
    assert part.curve("train/loss") + resumed.curve("train/loss") == whole.curve("train/loss")
    assert resumed.results["val/loss"] == whole.results["val/loss"]


def test_a_trained_encoding_needs_fewer_tokens_for_the_same_text(text: Path, tmp_path: Path) -> None:
    model = {"tokenizer": "bpe", "vocabulary": 512}
    context = trained(small(text, model=model, steps=4, evaluate_every=4), tmp_path / "home")
    tokenizer = AutoTokenizer.from_pretrained(context.artifacts["model.huggingface"].path)
    assert len(tokenizer(SENTENCE)["input_ids"]) <= 12
    assert tokenizer.decode(tokenizer("Grüße\n")["input_ids"]) == "Grüße\n"
    # A token of this text is several bytes, so a byte costs fewer bits than a token.
    assert context.results["val/bits_per_byte"] < context.results["val/loss"] / math.log(2) / 3


def test_adapters_train_alone_and_are_exported_or_merged(text: Path, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", text, tmp_path / "first")
    adapter = {"mode": "lora", "rank": 4, "targets": "all-linear"}
    spec = small(text, model={"source": str(base)}, adapter=adapter, steps=12, evaluate_every=6)
    context = trained(spec, tmp_path / "beside")
    assert context.curve("val/loss")[-1][1] < context.curve("train/loss")[0][1]
    folder = Path(context.artifacts["model.adapter"].path)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    ids = torch.tensor([list(SENTENCE[:30].encode())])
    plain = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        before = plain(ids).logits
        adapted = PeftModel.from_pretrained(plain, folder)(ids).logits
    assert not torch.allclose(adapted, before, atol=1e-2)
    merged = trained(
        msgspec.structs.replace(spec, adapter=msgspec.structs.replace(spec.adapter, merge=True)), tmp_path / "in"
    )
    assert "model.adapter" not in merged.artifacts
    whole = AutoModelForCausalLM.from_pretrained(merged.artifacts["model.huggingface"].path)
    with torch.no_grad():
        torch.testing.assert_close(whole(ids).logits, adapted, atol=1e-4, rtol=1e-4)


def test_a_chat_model_learns_the_answers_alone(tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    turns = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "yes"}]} for n in range(60)
    ]
    chats.write_text("\n".join(json.dumps(turn) for turn in turns))
    data = {"messages_field": "messages", "packing": "best-fit"}
    spec = small(chats, data=data, model={"context": 64, "hidden": 48}, generation={"prompt": "7?"}, steps=60)
    context = trained(msgspec.structs.replace(spec, evaluate_every=60), tmp_path / "home")
    # The numbers asked cannot be foretold; the answers can.
    assert context.results["val/token_accuracy"] > 0.95
    assert Path(context.artifacts["text.sample"].path).read_text() == "yes"
    folder = Path(context.artifacts["model.huggingface"].path)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [256, 259]


def test_other_architectures_are_fine_tuned_too(text: Path, tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=264, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=256, eos_token_id=256
    )
    save_model(tmp_path / "gpt2", GPT2LMHeadModel(config), byte_tokenizer())
    spec = small(text, model={"source": str(tmp_path / "gpt2")}, steps=6, evaluate_every=6)
    assert check(spec) == ()
    context = trained(spec, tmp_path / "home")
    assert context.curve("train/loss")[-1][1] < context.curve("train/loss")[0][1]
    loaded = AutoModelForCausalLM.from_pretrained(context.artifacts["model.huggingface"].path)
    assert isinstance(loaded, GPT2LMHeadModel)
    refused = small(text, model={"source": str(tmp_path / "gpt2")}, parallel={"processes": 2, "tensor": 2})
    assert any(problem.field.startswith("parallel") for problem in check(refused))


def test_check_lists_every_problem_at_once(text: Path, tmp_path: Path) -> None:
    assert check(small(text)) == ()
    spec = small(
        text,
        model={"hidden": 30, "heads": 4, "key_value_heads": 3},
        adapter={"mode": "qlora", "targets": "query"},
        parallel={"processes": 2, "tensor": 2, "sharding": "zero3"},
        sequence_length=64,
        precision="fp8",
    )
    fields = {problem.field for problem in check(spec)}
    expected = {
        "model.hidden",
        "model.key_value_heads",
        "adapter.mode",
        "adapter.targets",
        "sequence_length",
        "precision",
    }
    assert expected <= fields
    gone = check(small(tmp_path / "gone", model={"source": "/nowhere"}))
    assert {"model.source", "data.data"} <= {problem.field for problem in gone}
    (parent,) = check(small(text, model={"source": "parent"}))
    assert "'parent'" in parent.hint


def test_a_tokenizer_that_does_not_fit_the_model_is_refused_before_and_in_the_run(text: Path, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", text, tmp_path / "first")
    bpe_tokenizer([Path(__file__).read_text()], 400).save_pretrained(base)
    spec = small(text, model={"source": str(base)})
    (problem,) = check(spec)
    assert problem.field == "model.tokenizer"
    with pytest.raises(UserError, match="embeddings for 264"):
        trained(spec, tmp_path / "home")
    foreign = small(text, model={"source": str(base), "tokenizer": "bytes"})
    assert "its own tokenizer" in check(foreign)[0].message


def test_weights_of_another_model_are_refused(text: Path, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", text, tmp_path / "first")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match="do not belong to its config.json"):
        trained(small(text, model={"source": str(base)}), tmp_path / "home")


def test_a_teacher_of_other_tokens_is_refused(text: Path, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", text, tmp_path / "first")
    spec = small(text, distillation={"teacher": str(base)}, model={"tokenizer": "bpe", "vocabulary": 512})
    with pytest.raises(UserError, match="has another tokenizer than this model"):
        trained(spec, tmp_path / "home")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(UserError, match="does not continue text"):
        trained(small(text, distillation={"teacher": str(base)}), tmp_path / "home")


def test_estimates_and_room_are_told_before_anything_is_loaded(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small(text)
    assert KIND.checkpoint_bytes(spec)
    estimate = KIND.estimate(spec)
    assert estimate is not None
    assert estimate.total_bytes > 0
    unknown = small(text, model={"source": "acme/never-fetched"})
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert KIND.checkpoint_bytes(unknown) is KIND.estimate(unknown) is None
    assert check(unknown) == ()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (problem,) = check(unknown)
    assert "acme/never-fetched is not on this machine" in problem.message


@pytest.mark.timeout(300)
def test_ranks_train_as_one_process_does_also_with_adapters(text: Path, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", text, tmp_path / "first")
    alone = {"steps": 4, "evaluate_every": 4, "micro_batch": 4, "optimizer": {"lr": 0.02, "grad_accum_steps": 2}}
    adapter = {"rank": 4, "targets": "all-linear"}
    cases = {
        "full": {},
        "lora": {"model": {"source": str(base)}, "adapter": {**adapter, "mode": "lora", "merge": True}},
        "qlora": {"model": {"source": str(base)}, "adapter": {**adapter, "mode": "qlora"}},
    }
    shared = {"steps": 4, "evaluate_every": 4, "micro_batch": 4}
    layouts = {
        "full": {"processes": 2, "tensor": 2},
        "lora": {"processes": 2, "sharding": "zero3"},
        "qlora": {"processes": 2},
    }
    specs = {name: msgspec.to_builtins(small(text, **alone, **case)) for name, case in cases.items()}
    split = {
        name: msgspec.to_builtins(small(text, **(alone if name == "full" else shared), **case, parallel=layouts[name]))
        for name, case in cases.items()
    }
    expected = train_cases(str(tmp_path / "alone"), specs)
    found = run_in_ranks(train_cases, 2, home=str(tmp_path / "ranks"), cases=split)[0]
    for name in cases:
        assert found[name]["losses"] == pytest.approx(expected[name]["losses"], rel=1e-5), name
        assert found[name]["validation"] == pytest.approx(expected[name]["validation"], rel=1e-5), name
        assert found[name]["artifacts"].keys() == expected[name]["artifacts"].keys()
    assert "model.adapter" in found["qlora"]["artifacts"]
    for name in ("full", "lora"):
        models = [
            AutoModelForCausalLM.from_pretrained(runs[name]["artifacts"]["model.huggingface"])
            for runs in (expected, found)
        ]
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)  # a step moves weights by up to 2e-2


@pytest.mark.parametrize("name", KIND.examples)
def test_examples_are_sound(name: str) -> None:
    spec = read_spec(examples_dir() / name)
    assert all("'parent'" in problem.hint for problem in check(spec)), check(spec)
