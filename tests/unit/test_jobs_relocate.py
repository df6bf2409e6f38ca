"""Paths of a spec moved to a node's copies, and only those."""

from __future__ import annotations

from core.contracts.placement import CopiedPath, NodePlacement, Placement
from core.contracts.specs import LaunchSpec
from core.jobs.relocate import relocated
from core.train.tasks.script import ScriptTrainingSpec

PLACEMENT = Placement(
    nodes=(NodePlacement(node="a", work_dir="/work a"), NodePlacement(node="b", work_dir="/home/b/.pilothouse")),
    copies=(
        CopiedPath(here="/me/code", there="runs/r/code"),
        CopiedPath(here="/me/code/data", there="data/abc"),
        CopiedPath(here="/me/one file.csv", there="data/def/one file.csv"),
    ),
)
SPEC = ScriptTrainingSpec(
    name="/me/code",
    script="/me/code/train.py",
    working_folder="/me/code",
    args=(
        "--data=/me/code/data/x",
        "/me/one file.csv",
        "/me/codex",
        "key=value",
        "--x",
        "/other=/me/code",
        "$(touch /me/code)",
    ),
    launch=LaunchSpec(env={"DATA": "/me/code"}),
)


def test_paths_that_are_or_lie_below_a_copy_are_moved_for_each_node() -> None:
    moved = relocated(SPEC, PLACEMENT, "a")
    assert moved.script == "/work a/runs/r/code/train.py"
    assert moved.working_folder == "/work a/runs/r/code"
    assert moved.args[:2] == ("--data=/work a/data/abc/x", "/work a/data/def/one file.csv")
    assert relocated(SPEC, PLACEMENT, "b").script == "/home/b/.pilothouse/runs/r/code/train.py"


def test_everything_else_stays_as_it_is() -> None:
    moved = relocated(SPEC, PLACEMENT, "a")
    assert moved.args[2:] == SPEC.args[2:]
    assert (moved.name, moved.launch, moved.interpreter) == (SPEC.name, SPEC.launch, "")
    assert relocated(SPEC, Placement(nodes=PLACEMENT.nodes), "a") is SPEC
