"""What earlier runs left for later ones: artifacts by kind, looked up along the lineage of a run.

Reads the event logs and specs of run directories only; the index over them is somebody else's.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from core.contracts.events import ArtifactEvent
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch


def artifacts_of(run_dir: Path) -> dict[str, Path]:
    """Return the newest existing artifact of each kind that a run registered.

    Raises:
        OSError: A log cannot be read.
    """
    found: dict[str, Path] = {}
    offsets: dict[str, int] = {}
    more = True
    while more:
        batch = read_batch(run_dir, offsets)
        offsets.update({file.name: file.end for file in batch.files})
        more = batch.more and not batch.is_empty
        for event in (event for file in batch.files for event in file.events):
            if isinstance(event, ArtifactEvent) and (run_dir / event.path).exists():
                found[event.kind] = run_dir / event.path
    return found


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
