"""Layouts as data: who holds what, ready-made ones for any number of processes and hosts, in words."""

from __future__ import annotations

import pytest

from app.viewmodels.rank_layout import PRESETS, RankLayout, hosts_of, layout_of, preset_of, preset_values
from core.contracts.forms import FieldCondition, FormValue


def values(processes: int, hosts: int) -> dict[str, FormValue]:
    """Return form values with nothing else chosen."""
    return {
        "parallel.processes": processes,
        "launch.hosts": [f"h{n}" for n in range(hosts)] if hosts > 1 else [],
        "optimizer.grad_accum_steps": 1,
    }


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
def test_every_ready_made_layout_fills_all_ranks(preset, processes: int, hosts: int) -> None:
    before = values(processes, hosts)
    after = {**before, **preset_values(preset, before)}
    layout = layout_of(after, 1 if preset.name == "single" else hosts)
    assert layout.divides
    assert layout.ranks >= preset.least_ranks
    if hosts == 1:
        assert preset_of(layout) == preset.name
    if layout.pipeline > 1:
        assert after["optimizer.grad_accum_steps"] >= layout.pipeline, "a pipeline needs that many micro-batches"
    assert layout.tensor <= layout.processes, "matrices are shared within a host only"


def test_ranks_are_numbered_as_the_mesh_does() -> None:
    layout = RankLayout(processes=4, hosts=2, tensor=2, pipeline=2)
    assert layout.data == 2
    assert [layout.place(0, 0, 0, t).rank for t in (0, 1)] == [0, 1]
    assert layout.place(1, 0, 0, 0).rank == 2
    assert layout.place(0, 1, 0, 0).rank == 4
    assert layout.place(1, 1, 0, 1).host == 1
    assert "layers: part 2 of 2" in layout.tooltip(layout.place(0, 1, 0, 0))


def test_a_layout_in_words() -> None:
    assert RankLayout().sentence().startswith("One process")
    told = RankLayout(processes=8, tensor=2, pipeline=2).sentence()
    assert told.startswith("8 ranks = 2 data × 2 tensor × 2 pipeline.")
    shared = RankLayout(processes=8, sharding="zero3").sentence()
    assert "8 data ranks share out its weights and all state" in shared
    assert "needs a multiple of 4" in RankLayout(processes=6, tensor=4).sentence()


def test_hosts_are_counted_wherever_the_run_goes() -> None:
    assert hosts_of({}) == 1
    assert hosts_of({"launch.hosts": ["a", "b"]}) == 2
    assert hosts_of({"launch.slurm.cluster": "c", "launch.slurm.nodes": 4}) == 4
    assert hosts_of({"launch.kubernetes.context": "k", "launch.kubernetes.nodes": 3}) == 3


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        (FieldCondition(path="a", values=("wsd",)), "wsd", True),
        (FieldCondition(path="a", values=("wsd",)), "cosine", False),
        (FieldCondition(path="a", above=1), 2, True),
        (FieldCondition(path="a", above=1), 1, False),
        (FieldCondition(path="a", above=1), "two", False),
        (FieldCondition(path="a", is_filled=True), "", False),
        (FieldCondition(path="a", is_filled=True), "teacher", True),
    ],
)
def test_conditions_between_fields(condition: FieldCondition, value: FormValue, *, holds: bool) -> None:
    assert condition.holds(value) is holds
