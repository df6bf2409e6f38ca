"""The search: seeded, resumable at any point, repaired after a kill, and better than chance on a smooth valley."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from core.contracts.specs import RunSpec
from core.pipeline.sweep.ranges import Domain, parse_domain
from core.pipeline.sweep.spec import SweepSpec
from core.pipeline.sweep.study import SweepStudy
from core.plugins.fields import spec_fields


class Valley(RunSpec, frozen=True, kw_only=True, tag="test.study"):
    lr: Annotated[float, Meta(gt=0)] = 0.1
    width: int = 8
    idle: float = 0.0


def domains(**texts: str) -> tuple[Domain, ...]:
    fields = {field.dotted: field for field in spec_fields(Valley)}
    found = tuple(parse_domain(fields[path], text, at=path) for path, text in texts.items())
    assert all(isinstance(domain, Domain) for domain in found)
    return found  # type: ignore[return-value]


SPACE = {"lr": "1e-5..1 log", "width": "1..100"}


def depth(values: dict[str, object]) -> float:
    return (math.log10(float(str(values["lr"]))) + 2) ** 2 + ((int(str(values["width"])) - 60) / 25) ** 2


def drive(study: SweepStudy, trials: int) -> list[float]:
    found = []
    for _ in range(trials):
        number = study.ask()
        assert number is not None
        found.append(depth(study.values_of(number)))
        study.finish(number, found[-1])
    return found


def test_tpe_finds_a_better_value_than_its_random_beginning(tmp_path: Path) -> None:
    study = SweepStudy(SweepSpec(trials=40, seed=3), domains(**SPACE), tmp_path / "journal")
    found = drive(study, 40)
    assert min(found[10:]) < min(found[:10]) / 2
    assert sorted(found[10:])[15] < sorted(found[:10])[5], "it tries good regions more often"
    assert study.ask() is None
    best = study.best()
    assert best is not None
    assert best.value == min(found)


def test_an_interrupted_search_chooses_as_one_that_was_not(tmp_path: Path) -> None:
    spec = SweepSpec(trials=16, seed=1, startup_trials=4)
    whole = drive(SweepStudy(spec, domains(**SPACE), tmp_path / "whole"), 16)
    parts = [drive(SweepStudy(spec, domains(**SPACE), tmp_path / "parts"), 4) for _ in range(4)]
    assert [value for part in parts for value in part] == whole


def test_what_a_killed_worker_leaves_is_repaired(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    spec = SweepSpec(trials=8)
    drive(SweepStudy(spec, domains(**SPACE), journal), 3)
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    (tmp_path / "journal.lock").symlink_to(journal)
    study = SweepStudy(spec, domains(**SPACE), journal)
    assert study.ended() == 3
    drive(study, 2)
    assert SweepStudy(spec, domains(**SPACE), journal).ended() == 5


def test_a_trial_whose_worker_was_killed_while_choosing_gets_the_values_it_lacks(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    spec = SweepSpec(sampler="grid")
    space = {"width": "1|2", "idle": "5|6"}
    first = SweepStudy(spec, domains(**space), journal)
    assert first.ask() == 0
    lines = journal.read_bytes().splitlines(keepends=True)
    chosen = [n for n, line in enumerate(lines) if b'"param_name":"idle"' in line]
    journal.write_bytes(b"".join(lines[: chosen[0]]))
    again = SweepStudy(spec, domains(**space), journal)
    assert again.reopen() == [0]
    assert again.values_of(0) == {"width": 1, "idle": 5.0}
    again.finish(0, 1.0)
    rest = []
    while (number := again.ask()) is not None:
        rest.append(again.values_of(number))
        again.finish(number, 1.0)
    assert rest == [{"width": 1, "idle": 6.0}, {"width": 2, "idle": 5.0}, {"width": 2, "idle": 6.0}]


def test_importance_names_what_matters_and_waits_for_two_trials(tmp_path: Path) -> None:
    study = SweepStudy(SweepSpec(trials=30, sampler="random"), domains(**SPACE, idle="0..1"), tmp_path / "journal")
    assert study.importance() == ({}, "Importance is told once two trials have finished.")
    drive(study, 30)
    shares, note = study.importance()
    assert note == ""
    assert min(shares["lr"], shares["width"]) > 2 * shares["idle"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_importance_of_equal_values_is_not_told(tmp_path: Path) -> None:
    study = SweepStudy(SweepSpec(trials=3), domains(**SPACE), tmp_path / "journal")
    for _ in range(3):
        number = study.ask()
        assert number is not None
        study.finish(number, 1.0)
    assert study.importance()[0] == {}


def test_asha_lets_the_best_third_go_on(tmp_path: Path) -> None:
    spec = SweepSpec(trials=9, pruner="asha", min_steps=2, reduction_factor=3)
    study = SweepStudy(spec, domains(**SPACE), tmp_path / "journal")
    pruned = []
    for value in (0.1, 0.9, 0.8, 0.05, 0.95):
        number = study.ask()
        assert number is not None
        assert not study.report(number, 1, value), "never before the first step that counts"
        pruned.append(study.report(number, 2, value))
        assert not study.report(number, 2, value), "the same step is looked at once"
    assert pruned == [False, True, True, False, True]


def test_median_ends_the_worse_half(tmp_path: Path) -> None:
    spec = SweepSpec(trials=9, pruner="median", min_steps=1, median_trials=2, goal="maximize")
    study = SweepStudy(spec, domains(**SPACE), tmp_path / "journal")
    for value in (0.5, 0.6):
        number = study.ask()
        assert number is not None
        assert not study.report(number, 3, value)
        study.finish(number, value)
    number = study.ask()
    assert number is not None
    assert study.report(number, 3, 0.2)


def test_trials_at_once_do_not_try_the_same(tmp_path: Path) -> None:
    study = SweepStudy(SweepSpec(trials=30, startup_trials=5), domains(**SPACE), tmp_path / "journal")
    drive(study, 12)
    together = [study.values_of(number) for number in (study.ask(), study.ask(), study.ask()) if number is not None]
    assert len({(values["lr"], values["width"]) for values in together}) == 3
