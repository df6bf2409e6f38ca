"""``train.text-classifier``: new and published models, what a run leaves, teachers, ranks against one process, faults."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from core.contracts.errors import UserError
from core.plugins.decode import read_spec
from core.plugins.registry import registry
from core.settings.resources import examples_dir
from core.train.classify_learning import macro_f1
from core.train.models.text_classifier import encoder_tokenizer, load_classifier
from core.train.tasks.classify import KIND, TextClassifierSpec
from tests.helpers.engine_runs import new_store
from tests.helpers.rank_group import run_in_ranks
from tests.helpers.recording_context import RecordingContext

pytestmark = pytest.mark.timeout(300)
WORDS = {"good": ("fine", "great", "nice"), "bad": ("poor", "broken", "awful"), "none": ("blue", "round", "small")}


def table(path: Path, each: int = 20) -> Path:
    """Write rows whose class follows from one of their words."""
    draw = np.random.default_rng(0)
    rows = [
        {"text": f"the {draw.choice(('lamp', 'tent', 'bag'))} number {number} is {draw.choice(words)}", "label": label}
        for number in range(each)
        for label, words in WORDS.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def spec_of(data: Path, **fields: Any) -> TextClassifierSpec:
    model = {"layers": 1, "hidden": 64, "heads": 2, "length": 24, "vocabulary": 512, "dropout": 0.0}
    given: dict[str, Any] = {
        "kind": "train.text-classifier",
        "data": {"data": str(data), "validation_fraction": 0.2},
        "steps": 40,
        "evaluate_every": 10,
        "device": "cpu",
        **fields,
        "optimizer": {"lr": 0.001, **fields.get("optimizer", {})},
        "model": {**model, **fields.get("model", {})},
    }
    return msgspec.convert(given, TextClassifierSpec)


def run(spec: Any, context: RecordingContext) -> RecordingContext:
    kind = registry().get(str(spec.__struct_config__.tag))
    assert kind.rank_run is not None
    kind.rank_run(spec, context)
    return context


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("texts") / "rows.jsonl")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordingContext:
    return run(spec_of(data), RecordingContext(tmp_path_factory.mktemp("first") / "home"))


def folder_of(context: RecordingContext) -> Path:
    return Path(context.artifacts["model.huggingface"].path)


def test_a_new_model_learns_and_its_two_forms_agree(trained: RecordingContext) -> None:
    assert trained.results["best/accuracy"] == trained.results["best/macro_f1"] == 1.0
    assert trained.curve("val/loss")[-1][1] < 0.6 * trained.curve("val/loss")[0][1]
    (confusion,) = trained.tables.values()
    assert [row[0] for row in confusion.rows] == ["bad", "good", "none"]
    assert [row[1:] for row in confusion.rows] == [(4, 0, 0), (0, 4, 0), (0, 0, 4)]
    tokenizer = AutoTokenizer.from_pretrained(folder_of(trained))
    model = AutoModelForSequenceClassification.from_pretrained(folder_of(trained)).eval()
    assert model.config.id2label == {0: "bad", 1: "good", 2: "none"}
    session = onnxruntime.InferenceSession(trained.artifacts["model.onnx"].path, providers=["CPUExecutionProvider"])
    texts = ["the tent number 3 is awful", "the lamp number 7 is nice", "the bag number 5 is round"]
    for chosen in (texts, texts[:1]):
        given = tokenizer(chosen, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(given["input_ids"], given["attention_mask"]).logits.numpy()
        named = {name: given[name].numpy() for name in ("input_ids", "attention_mask")}
        np.testing.assert_allclose(session.run(None, named)[0], expected, atol=1e-4)
        assert expected.argmax(1).tolist() == [0, 1, 2][: len(chosen)]


def test_the_same_texts_give_the_same_tokenizer_which_marks_both_ends() -> None:
    texts = [row for _ in range(3) for row in ("the cat sat", "a dog barked at the cat", "Zürich")]
    first, second = (encoder_tokenizer(texts, 600, 16) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    ids = first("the cat, Zürich!")["input_ids"]
    assert (ids[0], ids[-1]) == (first.cls_token_id, first.sep_token_id)
    assert first.decode(ids, skip_special_tokens=True) == "the cat, Zürich!"
    assert len(first) <= 600


def test_a_published_model_gets_a_last_layer_for_other_classes(trained: RecordingContext, tmp_path: Path) -> None:
    rows = tmp_path / "two.jsonl"
    rows.write_text("".join(json.dumps({"text": f"word {n}", "label": n % 2}) + "\n" for n in range(24)))
    context = RecordingContext(tmp_path / "home")
    run(spec_of(rows, steps=1, model={"source": str(folder_of(trained))}), context)
    before, after = (AutoModelForSequenceClassification.from_pretrained(folder_of(c)) for c in (trained, context))
    assert after.config.id2label == {0: "0", 1: "1"}
    first, second = (model.bert.embeddings.word_embeddings.weight.detach() for model in (before, after))
    assert 0.0 < float((first - second).abs().max()) < 0.02  # one step away from the weights it began with
    (folder_of(context) / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        load_classifier(folder_of(context), seed=0)


def test_weights_of_another_architecture_are_refused(trained: RecordingContext, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((folder_of(trained) / name).read_bytes())
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match="do not belong to its config"):
        load_classifier(copy, seed=0, classes=("a", "b"))


def train_cases(home: str, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Train each case; return its losses and validations. Runs in a rank or in the test's own process."""
    found: dict[str, Any] = {}
    stores: list[object] = []
    Path(home).mkdir(exist_ok=True)
    for number, (name, given) in enumerate(cases.items()):
        stores.append(new_store(Path(home) / name, number, int(os.environ.get("RANK", "0"))))
        kind = registry().get(given["kind"])
        context = run(msgspec.convert(given, kind.spec), RecordingContext(Path(home) / name))
        distances = [value for _, value in context.curve("train/distillation_loss")]
        found[name] = {
            "losses": [value for _, value in context.curve("train/loss")],
            "validation": [value for _, value in context.curve("val/loss")],
            "distances": distances,
            "artifacts": sorted(context.artifacts),
        }
    return found


def test_ranks_train_as_one_process_does_also_with_a_teacher(
    trained: RecordingContext, data: Path, tmp_path: Path
) -> None:
    script = examples_dir() / "scripts" / "custom_autoencoder.py"
    custom = {"kind": "train.custom", "file": str(script), "device": "cpu", "steps": 4, "evaluate_every": 4}
    teacher = {"teacher": str(folder_of(trained)), "weight": 0.5}
    text = {"steps": 4, "evaluate_every": 4, "optimizer": {"max_grad_norm": 1.0}}
    cases: dict[str, dict[str, Any]] = {
        "custom": {**custom, "distillation": {"l1": 1e-3}},
        "text": msgspec.to_builtins(spec_of(data, **text, distillation=teacher)),
        "kept": msgspec.to_builtins(spec_of(data, **text, distillation={**teacher, "cache_logits": True})),
    }
    layouts = {"custom": {"sharding": "zero3"}, "text": {"sharding": "zero3"}, "kept": {}}
    alone = {name: {**cases[name], "micro_batch": 16} for name in ("custom", "text")}
    split = {
        name: {**case, "micro_batch": 8, "parallel": {"processes": 2, **layouts[name]}} for name, case in cases.items()
    }
    expected = train_cases(str(tmp_path / "alone"), alone)
    found = run_in_ranks(train_cases, 2, home=str(tmp_path / "ranks"), cases=split)
    # What was kept in float16 is what the teacher says each time, to the precision of the format.
    for name, same, precision in (("custom", "custom", 1e-5), ("text", "text", 1e-5), ("kept", "text", 1e-3)):
        assert found[0][name]["losses"] == pytest.approx(expected[same]["losses"], rel=precision), name
        assert found[0][name]["validation"] == pytest.approx(expected[same]["validation"], rel=1e-3), name
        assert found[0][name]["artifacts"] == expected[same]["artifacts"], name
        assert found[1][name]["artifacts"] == [], name
    assert len(expected["text"]["distances"]) == 4
    assert all(value > 0 for value in expected["text"]["distances"])


def test_a_teacher_of_other_words_or_classes_is_refused(trained: RecordingContext, data: Path, tmp_path: Path) -> None:
    teacher = {"teacher": str(folder_of(trained))}
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(data.read_text().replace('"none"', '"neither"'))
    for source, words in ((renamed, "classes"), (table(tmp_path / "few.jsonl", each=5), "another one")):
        with pytest.raises(UserError, match=words):
            run(spec_of(source, distillation=teacher), RecordingContext(tmp_path / source.stem))


def test_macro_f1_is_the_mean_of_the_classes_that_occur() -> None:
    # Class 0: precision 1/2, recall 1, F1 2/3; class 1: nothing right; class 2: neither true nor taken.
    assert macro_f1([1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, 1.0, 0.0]) == pytest.approx(1 / 3)
    assert macro_f1([3.0, 2.0], [3.0, 2.0], [3.0, 2.0]) == 1.0


def test_check_names_all_problems_at_once(data: Path, trained: RecordingContext, tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path / "gone.jsonl",
        model={"hidden": 30, "heads": 4},
        parallel={"processes": 2, "tensor": 2},
        distillation={"teacher": str(tmp_path)},
    )
    fields = [problem.field for problem in KIND.check(spec)]
    assert {"data.data", "model.hidden", "distillation.teacher"} < set(fields)
    assert any(field.startswith("parallel") for field in fields)
    assert KIND.check(spec_of(data)) == ()
    long = KIND.check(spec_of(data, model={"source": str(folder_of(trained)), "length": 4096}))
    assert [problem.field for problem in long] == ["model.length"]
    absent = KIND.check(spec_of(data, model={"source": str(tmp_path / "nowhere")}))
    assert [problem.field for problem in absent] == ["model.source"]
    assert KIND.checkpoint_bytes(spec_of(data)) is not None
    estimate = KIND.estimate(spec_of(data))
    assert estimate is not None
    assert estimate.total_bytes > 0


def test_the_example_is_sound() -> None:
    assert KIND.check(read_spec(examples_dir() / "reviews.toml")) == ()
