"""What earlier runs left for later ones: artifacts by kind along the lineage of a run, and the runs a run started.

Reads the event logs and specs of run directories only; the index over them is somebody else's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from core.contracts.events import AnyEvent, ArtifactEvent, ChildEvent
from core.contracts.ids import RunId
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch


def _events(run_dir: Path) -> Iterator[AnyEvent]:
    """Yield every event of a run, file by file."""
    offsets: dict[str, int] = {}
    more = True
    while more:
        batch = read_batch(run_dir, offsets)
        offsets.update({file.name: file.end for file in batch.files})
        more = batch.more and not batch.is_empty
        for file in batch.files:
            yield from file.events


def artifacts_of(run_dir: Path) -> dict[str, Path]:
    """Return the newest existing artifact of each kind that a run registered.

    Raises:
        OSError: A log cannot be read.
    """
    return {
        event.kind: run_dir / event.path
        for event in _events(run_dir)
        if isinstance(event, ArtifactEvent) and (run_dir / event.path).exists()
    }


def children_of(run_dir: Path) -> dict[str, RunId]:
    """Return the newest run that a run started in each role, roles in the order they were first started.

    Raises:
        OSError: A log cannot be read.
    """
    return {event.role: RunId(event.run_id) for event in _events(run_dir) if isinstance(event, ChildEvent)}


def parent_of(run_dir: Path) -> str:
    """Return the id of the run that a run builds on; empty when there is none or its spec cannot be read."""
    try:
        spec = tomllib.loads(RunLayout(run_dir).spec.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ""
    parent = spec.get("parent", "")
    return parent if isinstance(parent, str) else ""


def inherited_artifacts(runs_dir: Path, run_id: str) -> dict[str, Path]:
    """Return the artifacts by kind of a run and of all the runs it builds on; the nearest run wins.

    Raises:
        OSError: A log cannot be read.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    while run_id and run_id not in seen and (runs_dir / run_id).is_dir():
        seen.add(run_id)
        found = artifacts_of(runs_dir / run_id) | found
        run_id = parent_of(runs_dir / run_id)
    return found
