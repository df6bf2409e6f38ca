"""Specs from TOML and from forms: every problem at once, each with its field and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta, to_builtins

from core.contracts.errors import InvalidSpec
from core.contracts.forms import FieldKind
from core.contracts.kinds import RunKind
from core.contracts.specs import RunSpec, unit
from core.plugins.decode import decode_spec, encode_spec, parse_toml, read_spec
from core.plugins.forms import form_of, mapping_of, values_of
from core.plugins.registry import Registry, registry


class SampleSpec(RunSpec, frozen=True, kw_only=True, tag="test.sample"):
    """A spec with one field of every kind."""

    data: Annotated[str, Meta(title="Data", extra_json_schema={"path": "folder", "names": ["digits"]})]
    lr: Annotated[float, Meta(gt=0, lt=1, title="Learning rate", description="Step size.")] = 0.1
    epochs: Annotated[int, Meta(ge=1, le=10, extra_json_schema={"unit": "epochs", "advanced": True})] = 3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    nesterov: bool = False
    period_s: Annotated[float | None, Meta(extra_json_schema=unit("s"))] = None
    labels: tuple[str, ...] = ("a",)


@pytest.fixture
def kinds() -> Registry:
    found = Registry()
    found.add(
        RunKind(spec=SampleSpec, title="Sample", summary="", group="train", icon="flask", run=lambda _s, _c: None)
    )
    return found


def problems_of(kinds: Registry, **fields: object) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        decode_spec({"kind": "test.sample", **fields}, kinds=kinds)
    return {problem.field: problem.sentence() for problem in caught.value.problems}


def test_every_problem_is_named_at_once(kinds: Registry) -> None:
    found = problems_of(
        kinds, lr=3.0, epochs="3", optimiser="sgd", optimizer="adam", launch={"thread": 1, "threads": -1}, tags="x"
    )
    assert set(found) == {"data", "lr", "epochs", "optimiser", "optimizer", "launch.thread", "launch.threads", "tags"}
    assert found["optimiser"] == "optimiser: is not a known field. Did you mean 'optimizer'?"
    assert found["data"] == "data: is missing."
    assert found["lr"] == "lr: must be a number less than 1.0; 3.0 is not."
    assert found["epochs"] == "epochs: must be a whole number, not text in quotes ('3')."
    assert "Use one of: adamw, sgd." in found["optimizer"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"launch": 3}, "launch", "must be a table"),
        ({"lr": True}, "lr", "must be a number"),
        ({"epochs": 11}, "epochs", "at most 10"),
        ({"nesterov": 1}, "nesterov", "true or false"),
        ({"labels": ["a", 3]}, "labels", "text in quotes"),
    ],
)
def test_a_wrong_value_is_explained(kinds: Registry, fields: dict[str, object], field: str, words: str) -> None:
    found = problems_of(kinds, data="digits", **fields)
    assert set(found) == {field}
    assert words in found[field]


def test_an_unknown_kind_names_the_nearest(kinds: Registry) -> None:
    with pytest.raises(InvalidSpec, match=r"kind: 'test.simple' is not a kind of run. Did you mean 'test.sample'\?"):
        decode_spec({"kind": "test.simple"}, kinds=kinds)
    with pytest.raises(InvalidSpec, match="kind: is missing"):
        decode_spec({}, kinds=kinds)


def test_toml_and_form_values_round_trip(kinds: Registry, tmp_path: Path) -> None:
    spec = decode_spec({"kind": "test.sample", "data": "digits", "launch": {"env": {"A": "1"}}}, kinds=kinds)
    assert decode_spec(parse_toml(encode_spec(spec)), kinds=kinds) == spec
    assert decode_spec(mapping_of("test.sample", values_of(spec)), kinds=kinds) == spec
    (tmp_path / "spec.toml").write_text(encode_spec(spec))
    assert read_spec(tmp_path / "spec.toml", kinds) == spec


def test_relative_paths_are_taken_from_the_folder_of_the_spec(kinds: Registry, tmp_path: Path) -> None:
    file = tmp_path / "a folder" / "spec.toml"
    file.parent.mkdir()
    file.write_text('kind = "test.sample"\ndata = "images/ünï"\n')
    spec = read_spec(file, kinds)
    assert isinstance(spec, SampleSpec)
    assert spec.data == str(tmp_path / "a folder" / "images/ünï")
    file.write_text('kind = "test.sample"\ndata = "digits"\n')
    named = read_spec(file, kinds)
    assert isinstance(named, SampleSpec)
    assert named.data == "digits"


def test_the_folder_of_an_unknown_user_is_a_plain_name(kinds: Registry, tmp_path: Path) -> None:
    spec = decode_spec({"kind": "test.sample", "data": "~no-such-user/x"}, folder=tmp_path, kinds=kinds)
    assert isinstance(spec, SampleSpec)
    assert spec.data == str(tmp_path / "~no-such-user/x")


def test_an_unreadable_spec_is_one_sentence(kinds: Registry, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="No such file"):
        read_spec(tmp_path / "absent.toml", kinds)
    with pytest.raises(InvalidSpec, match="Is a directory"):
        read_spec(tmp_path, kinds)
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpec, match="not UTF-8"):
        read_spec(broken, kinds)
    broken.write_text("kind = \nlr = 1")
    with pytest.raises(InvalidSpec, match="not valid TOML.*line 1"):
        read_spec(broken, kinds)


def test_a_form_shows_what_the_spec_says(kinds: Registry) -> None:
    fields = {field.path: field for field in form_of(kinds.get("test.sample")).fields}
    assert fields["data"].kind is FieldKind.FOLDER
    assert (fields["lr"].label, fields["lr"].minimum, fields["lr"].exclusive_minimum) == ("Learning rate", 0, True)
    assert (fields["epochs"].unit, fields["epochs"].advanced, fields["epochs"].maximum) == ("epochs", True, 10)
    assert fields["optimizer"].choices == ("adamw", "sgd")
    assert fields["nesterov"].kind is FieldKind.SWITCH
    assert (fields["period_s"].optional, fields["period_s"].unit) == (True, "s")
    assert (fields["labels"].kind, fields["labels"].default) == (FieldKind.LIST, ["a"])
    assert (fields["launch.env"].kind, fields["launch.env"].section) == (FieldKind.MAPPING, "Processes")
    assert fields["launch.threads"].advanced


def test_every_built_in_kind_imports_and_describes_each_of_its_fields() -> None:
    assert registry().broken == []
    for kind in registry().kinds.values():
        form = form_of(kind)
        assert form.title
        assert form.summary
        for field in form.fields:
            assert field.description, f"{form.kind}: {field.path} has no description"


def test_data_are_paths_where_a_model_or_a_run_may_be_a_name(tmp_path: Path) -> None:
    given = {
        "kind": "train.language",
        "data": {"data": "text.txt", "validation_data": "stdlib"},
        "model": {"source": "owner/model"},
        "checkpoints": {"start_from": "20260101-000000-name-abcdef"},
        "distillation": {"teacher": "./teacher"},
    }
    spec = to_builtins(decode_spec(given, folder=tmp_path))
    assert spec["data"]["data"] == str(tmp_path / "text.txt")
    assert spec["data"]["validation_data"] == "stdlib"
    assert spec["model"]["source"] == "owner/model"
    assert spec["checkpoints"]["start_from"] == "20260101-000000-name-abcdef"
    assert spec["distillation"]["teacher"] == str(tmp_path / "teacher")
