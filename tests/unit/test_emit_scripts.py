"""The emitter as a script has it: a log for each rank, where a restarted script goes on, checkpoints it wrote."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from core.contracts.events import AnyEvent, AttemptEvent, CheckpointEvent, MetricEvent
from core.runlog import emit
from core.runlog.tail import read_file


def started(monkeypatch: pytest.MonkeyPatch, run_dir: Path, **variables: str) -> ModuleType:
    """Return the module as a fresh process of a script gets it."""
    monkeypatch.setenv("PILOTHOUSE_EVENTS", str(run_dir))
    for name in ("RANK", "PILOTHOUSE_NODE", "PILOTHOUSE_ATTEMPT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("pilothouse_emit", emit.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def events(path: Path) -> tuple[AnyEvent, ...]:
    batch = read_file(path, 0, 1 << 20)
    return () if batch is None else batch.events


def test_every_rank_of_every_node_has_a_log_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for node, rank in (("a", "0"), ("a", "1"), ("b", "2")):
        started(monkeypatch, tmp_path, PILOTHOUSE_NODE=node, RANK=rank).metric(1, loss=float(rank))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "events.a.0.jsonl",
        "events.a.1.jsonl",
        "events.b.2.jsonl",
    ]


def test_a_script_that_goes_on_tells_from_where_by_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = started(monkeypatch, tmp_path)
    for step in range(1, 6):
        first.metric(step, loss=1.0)
    second = started(monkeypatch, tmp_path, PILOTHOUSE_ATTEMPT="2")
    second.metric(4, loss=0.5)
    second.metric(5, loss=0.5)
    attempts = [event for event in events(tmp_path / "events.local.0.jsonl") if isinstance(event, AttemptEvent)]
    assert [(event.attempt, event.resumed_from_step) for event in attempts] == [(2, 3)]


def test_ranks_restarted_by_torchrun_tell_so_too_and_only_rank_0_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        for rank in "01":
            started(monkeypatch, tmp_path, RANK=rank).metric(0, loss=1.0)
    (attempt,) = (event for event in events(tmp_path / "events.local.0.jsonl") if isinstance(event, AttemptEvent))
    assert (attempt.attempt, attempt.resumed_from_step) == (2, None)
    assert all(isinstance(event, MetricEvent) for event in events(tmp_path / "events.local.1.jsonl"))


def test_a_checkpoint_is_recorded_with_its_hash_and_its_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkpoints" / "step-7.pt"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    script = started(monkeypatch, tmp_path)
    script.checkpoint(7, file)
    file.unlink()
    script.checkpoint(7, file)
    made, removed = (event for event in events(tmp_path / "events.local.0.jsonl") if isinstance(event, CheckpointEvent))
    assert (made.step, made.path, made.size_bytes, made.removed) == (7, "checkpoints/step-7.pt", 7, False)
    assert made.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert (removed.path, removed.removed) == (made.path, True)


def test_outside_of_pilothouse_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = started(monkeypatch, tmp_path)
    monkeypatch.delenv("PILOTHOUSE_EVENTS")
    script.metric(1, loss=1.0)
    script.checkpoint(1, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
