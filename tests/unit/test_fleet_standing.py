"""The verdict on a run whose head does not answer: lost only where the others' ends say that it did not end well."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.mirrors import LinkRecord
from core.contracts.placement import NodePlacement, Placement
from core.contracts.states import RunState
from core.fleet.standing import standing_of
from core.jobs.records import ExitRecord, write_record
from core.runlog.layout import RunLayout


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    found = RunLayout(tmp_path)
    nodes = tuple(NodePlacement(node=name, host=name) for name in ("h1", "h2", "h3"))
    write_record(found.placement, Placement(nodes=nodes))
    write_record(found.link("h1"), LinkRecord(last_contact=7.0, is_reachable=False, message="no answer"))
    return found


def end(layout: RunLayout, node: str, state: RunState, message: str = "") -> None:
    write_record(layout.exit_record(node), ExitRecord(state=state, message=message, attempt=1, started=1.0, ended=2.0))


def test_while_another_part_goes_on_it_is_silent(layout: RunLayout) -> None:
    end(layout, "h2", RunState.FAILED)
    assert (standing_of(layout.run_dir).state, standing_of(layout.run_dir).silent_since) == (None, 7.0)


def test_it_is_lost_when_the_others_gave_up(layout: RunLayout) -> None:
    end(layout, "h2", RunState.FAILED, "h1 was lost.")
    end(layout, "h3", RunState.SUCCEEDED)
    standing = standing_of(layout.run_dir)
    assert standing.state is RunState.LOST
    assert "h1 was lost." in standing.message


def test_it_is_not_lost_when_the_others_succeeded(layout: RunLayout) -> None:
    end(layout, "h2", RunState.SUCCEEDED)
    end(layout, "h3", RunState.SUCCEEDED)
    assert (standing_of(layout.run_dir).state, standing_of(layout.run_dir).silent_since) == (None, 7.0)
