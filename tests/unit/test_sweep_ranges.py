"""Ranges of a sweep: their language, the fields they are checked against, the values of a grid, the spec of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from core.contracts.errors import FieldProblem, InvalidSpec
from core.contracts.specs import RunSpec
from core.pipeline.sweep.base import check, kept_base, prepare, with_values
from core.pipeline.sweep.ranges import Domain, parse_domain
from core.pipeline.sweep.spec import SweepSpec
from core.plugins.fields import spec_fields
from core.settings.home import Home
from tests.helpers.builders import new_run_dir
from tests.helpers.toy_plugin import install_toy


class Group(msgspec.Struct, frozen=True, kw_only=True):
    lr: Annotated[float, Meta(title="Rate", gt=0, le=1)] = 0.1


class Fields(RunSpec, frozen=True, kw_only=True, tag="test.fields"):
    group: Group = Group()
    width: Annotated[int, Meta(ge=1, le=64)] = 8
    fast: bool = False
    algorithm: Literal["adamw", "muon"] = "adamw"
    sizes: tuple[int, ...] = ()


FIELDS = {field.dotted: field for field in spec_fields(Fields)}


def parsed(path: str, text: str) -> Domain:
    domain = parse_domain(FIELDS[path], text, at="x")
    assert isinstance(domain, Domain), domain
    return domain


@pytest.mark.parametrize(
    ("path", "text", "grid"),
    [
        ("width", "16..64 step 16", (16, 32, 48, 64)),
        ("width", "3..7", (3, 4, 5, 6, 7)),
        ("width", "1..64 log in 7", (1, 2, 4, 8, 16, 32, 64)),
        ("width", "4|32", (4, 32)),
        ("group.lr", "0.1..0.3 step 0.1", (0.1, 0.2, 0.3)),
        ("group.lr", "1e-3..1 log in 4", (0.001, 0.01, 0.1, 1.0)),
        ("group.lr", "0.5 .. 1 in 3", (0.5, 0.75, 1.0)),
        ("group.lr", "1e-3..1 log", None),
        ("group.lr", "1e-3..1", None),
        ("width", "1..64 log", None),
        ("fast", "true|false", (True, False)),
        ("algorithm", "muon|adamw", ("muon", "adamw")),
    ],
)
def test_a_range_and_its_grid(path: str, text: str, grid: tuple[object, ...] | None) -> None:
    found = parsed(path, text).grid()
    assert found == (None if grid is None else pytest.approx(grid) if isinstance(grid[0], float) else grid)
    if found is not None:
        assert {type(value) for value in found} == {type(value) for value in grid or ()}


def test_a_range_is_shown_with_its_scale() -> None:
    record = parsed("group.lr", "1e-3..1 log").record()
    assert (record.path, record.label, record.kind, record.log) == ("group.lr", "Rate", "number", True)
    assert (record.low, record.high) == (1e-3, 1.0)
    assert parsed("algorithm", "muon|adamw").record().kind == "choice"
    assert parsed("width", "1..4").record().kind == "integer"


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("width", "64..16", "not more"),
        ("width", "1..80", "at most 64"),
        ("width", "0..8", "at least 1"),
        ("width", "1.5..8", "whole number"),
        ("width", "1..8 step 9", "does not fit"),
        ("width", "1..8 step 0", "does not fit"),
        ("width", "a..b", "'a' is not a number"),
        ("width", "1..inf", "not a finite number"),
        ("width", "1..8 log step 2", "has no step"),
        ("width", "1..8 in 0", "1 to 1000 values"),
        ("width", "4|x", "whole number"),
        ("width", "4||8", "a choice is empty"),
        ("group.lr", "0..1", "more than 0"),
        ("group.lr", "-1..1 log", "above 0"),
        ("fast", "0..1", "needs a field that is a number"),
        ("algorithm", "adamw|sgd", "sgd"),
        ("sizes", "1|2", "cannot be varied"),
        ("width", "  ", "has no range"),
    ],
)
def test_a_range_that_cannot_be_used_is_told_with_its_reason(path: str, text: str, said: str) -> None:
    problem = parse_domain(FIELDS[path], text, at="parameters.x")
    assert isinstance(problem, FieldProblem)
    assert problem.field == "parameters.x"
    assert said in problem.message


def test_values_replace_those_of_the_spec_and_leave_it_alone() -> None:
    mapping = {"kind": "x", "optimizer": {"lr": 1.0, "beta1": 0.9}}
    changed = with_values(mapping, {"optimizer.lr": 0.5, "loading.workers": 2})
    assert changed == {"kind": "x", "optimizer": {"lr": 0.5, "beta1": 0.9}, "loading": {"workers": 2}}
    assert mapping["optimizer"] == {"lr": 1.0, "beta1": 0.9}


@pytest.fixture
def valley(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_toy(tmp_path / "plugin", monkeypatch)
    path = tmp_path / "valley.toml"
    path.write_text('kind = "test.valley"\nsteps = 3\n', encoding="utf-8")
    return path


def fields_of(spec: SweepSpec) -> set[str]:
    return {problem.field for problem in check(spec)}


def test_what_is_varied_must_be_given_once_and_be_there(valley: Path, pilothouse_home: Path) -> None:
    some = {"lr": "1e-3..1e-1 log"}
    assert fields_of(SweepSpec(spec=str(valley), parameters=some)) == set()
    assert fields_of(SweepSpec()) == {"spec", "parameters"}
    assert fields_of(SweepSpec(spec=str(valley), base="x", parameters=some)) == {"spec"}
    assert fields_of(SweepSpec(spec=str(valley.with_name("none.toml")), parameters=some)) == {"spec"}
    assert fields_of(SweepSpec(base="../../etc", parameters=some)) == {"base"}
    run_dir = new_run_dir(pilothouse_home, kind="test.valley")
    assert fields_of(SweepSpec(base=run_dir.name, parameters=some)) == set()
    sweep = valley.with_name("sweep.toml")
    sweep.write_text('kind = "sweep"\n', encoding="utf-8")
    (problem,) = check(SweepSpec(spec=str(sweep), parameters=some))
    assert "a sweep itself" in problem.message


def test_problems_of_the_spec_and_of_the_kind_come_together_with_those_of_the_ranges(valley: Path) -> None:
    valley.write_text('kind = "test.valley"\nsteps = 0\nwidht = 3\n', encoding="utf-8")
    problems = check(SweepSpec(spec=str(valley), parameters={"lr": "9..1"}))
    assert len(problems) == 3
    assert any("steps" in p.message for p in problems)
    assert any("widht" in p.message for p in problems)
    valley.write_text('kind = "test.valley"\nwidth = 13\n', encoding="utf-8")
    (problem,) = check(SweepSpec(spec=str(valley), parameters={"lr": "1e-3|1e-2"}))
    assert "must not be 13" in problem.message


def test_a_grid_without_end_and_one_too_large_are_refused(valley: Path) -> None:
    spec = SweepSpec(spec=str(valley), sampler="grid", parameters={"lr": "1e-3..1e-1 log", "width": "1..3"})
    assert fields_of(spec) == {"parameters.lr"}
    spec = SweepSpec(spec=str(valley), sampler="grid", parameters={"lr": "0.1..1 in 1000", "width": "1..30"})
    (problem,) = check(spec)
    assert "30000 combinations" in problem.message


def test_the_base_is_kept_from_the_first_attempt_on(valley: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    spec = SweepSpec(spec=str(valley), parameters={"width": "8..64 step 8"})
    kept = tmp_path / "base.toml"
    first = kept_base(spec, home, kept)
    valley.unlink()
    again = kept_base(spec, home, kept)
    assert again.mapping == first.mapping
    trial = again.trial_spec({"width": 24})
    assert msgspec.to_builtins(trial)["width"] == 24
    assert msgspec.to_builtins(trial)["steps"] == 3
    with pytest.raises(InvalidSpec):
        kept_base(spec, home, tmp_path / "other.toml")


def test_paths_of_the_base_are_taken_from_its_own_folder(valley: Path, tmp_path: Path) -> None:
    data = tmp_path / "specs" / "digits.toml"
    data.parent.mkdir()
    data.write_text('kind = "train.script"\nscript = "train.py"\n', encoding="utf-8")
    (data.parent / "train.py").write_text("print()\n", encoding="utf-8")
    base, problems = prepare(SweepSpec(spec=str(data), parameters={"launch.threads": "1|2"}), Home(tmp_path))
    assert problems == ()
    assert base is not None
    assert base.mapping["script"] == str(data.parent / "train.py")
