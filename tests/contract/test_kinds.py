"""What every kind of run must keep: a described form, defaults that decode, an example, a cheap import."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from core.contracts.forms import FieldKind
from core.contracts.kinds import RunKind
from core.plugins.decode import decode_spec, encode_spec, read_spec
from core.plugins.fields import spec_fields
from core.plugins.forms import form_of, mapping_of, values_of
from core.plugins.registry import registry, tag_of
from core.settings.resources import examples_dir

TRAINING = ("train.image", "train.language", "train.script")
HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "onnx",
    "onnxruntime",
    "openvino",
    "sklearn",
    "tensorboard",
)
KINDS = pytest.mark.parametrize("kind", registry().kinds.values(), ids=registry().kinds)


def test_every_module_declares_a_kind_and_the_training_kinds_are_there() -> None:
    assert registry().broken == []
    assert set(TRAINING) <= set(registry().kinds)


@KINDS
def test_every_field_has_a_title_help_and_a_default_that_it_allows(kind: RunKind) -> None:
    form = form_of(kind)
    assert form.title
    assert form.summary.endswith(".")
    assert form.group in ("train", "compress", "benchmark", "pipeline")
    for field in form.fields:
        assert field.label, field.path
        assert len(field.description) > 10, field.path
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert field.minimum is not None, field.path
            assert field.minimum <= field.default, field.path
            assert field.maximum is None or field.default <= field.maximum, field.path
        if field.kind is FieldKind.CHOICE:
            assert field.default in field.choices, field.path


@KINDS
def test_a_form_starts_with_the_defaults_of_the_spec(kind: RunKind) -> None:
    form = form_of(kind)
    given = {field.path: field.default for field in form.fields if field.default is not None}
    if any(field.default is None and not field.optional for field in form.fields):
        pytest.skip("has fields that must be given")
    assert decode_spec(mapping_of(tag_of(kind), given)) == kind.spec()


@KINDS
def test_form_values_and_toml_lead_back_to_the_same_spec(kind: RunKind) -> None:
    tag = tag_of(kind)
    for name in kind.examples:
        spec = read_spec(examples_dir() / name)
        assert isinstance(spec, kind.spec)
        assert decode_spec(mapping_of(tag, values_of(spec))) == spec
        assert decode_spec(tomllib.loads(encode_spec(spec))) == spec


@KINDS
def test_every_kind_has_an_example_that_lacks_at_most_the_run_it_builds_on(kind: RunKind) -> None:
    assert kind.examples
    for name in kind.examples:
        problems = kind.check(read_spec(examples_dir() / name))
        assert all("'parent'" in problem.hint for problem in problems), problems
        assert not problems or tag_of(kind) not in TRAINING or name != kind.examples[0]


@pytest.mark.parametrize("tag", TRAINING)
def test_paths_of_training_kinds_are_marked_as_such(tag: str) -> None:
    marked = {field.dotted: field.path_kind for field in spec_fields(registry().get(tag).spec) if field.path_kind}
    engine = {"checkpoints.start_from": "folder", "distillation.teacher": "folder"}
    expected = {
        "train.image": {**engine, "data": "folder", "weights": "file"},
        "train.language": {
            **engine,
            "data.data": "folder",
            "data.validation_data": "folder",
            "model.source": "folder",
        },
        "train.script": {"script": "file", "working_folder": "folder"},
    }
    assert marked == expected[tag]


def test_importing_all_kinds_loads_no_heavy_library() -> None:
    code = f"import sys; from core.plugins.registry import registry; registry(); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
