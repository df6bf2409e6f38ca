"""Brings a run's newest checkpoint to the host that will be its head: from where it is, by way of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.events import CheckpointEvent
from core.contracts.hosts import Progress, Watcher
from core.contracts.placement import Placement
from core.fleet.copying import Copy
from core.fleet.fetch import fetch
from core.fleet.manifest import HashMemory, survey
from core.fleet.pool import HostPool
from core.fleet.run_folder import RunFolder
from core.jobs.checkpoints import all_checkpoints, is_intact
from core.runlog.tail import read_batch

Send = Callable[[Sequence[Copy], Watcher], None]


def move_checkpoints(
    pool: HostPool, folder: RunFolder, before: Placement, after: Placement, send: Send, watcher: Watcher
) -> None:
    """Make the newest checkpoint available on the new head; nothing to do where that is the old one.

    Args:
        pool: The connections.
        folder: The run directory here.
        before: Where the last attempt was.
        after: Where the next one will be.
        send: Makes copies on the new head.
        watcher: Sees the progress; may cancel.

    Raises:
        EnvironmentProblem: There are checkpoints, but on a host that does not answer.
        Cancelled: The user cancelled.
    """
    if before.head.host == after.head.host or not has_checkpoints(folder):
        return
    watcher.report(Progress(stage=f"Bringing the last checkpoint to {after.head.host}"))
    problem: EnvironmentProblem | UserError | None = None
    try:
        fetch(pool, folder.path, "checkpoints", watcher)
    except (EnvironmentProblem, UserError) as error:
        problem = error
    newest = next((path for path, found in all_checkpoints(folder.layout.checkpoints) if is_intact(path, found)), None)
    if newest is None:
        reason = f" {problem.message}" if problem is not None else ""
        raise EnvironmentProblem(
            f"The checkpoints of the run are on {before.head.host} and could not be brought from there.{reason}",
            f"Resume it when {before.head.host} answers, or clone the run to begin anew.",
        )
    manifest = survey(newest, (), HashMemory(folder.path / "hashes.json"), is_cancelled=watcher.is_cancelled)
    there = f"runs/{folder.run_id}/checkpoints/{newest.name}"
    send([Copy(manifest=manifest, here=str(newest), there=there, is_shared=False)], watcher)


def has_checkpoints(folder: RunFolder) -> bool:
    """Tell whether the run has written a checkpoint that it did not remove again."""
    kept: set[str] = set()
    offsets: dict[str, int] = {}
    while not (batch := read_batch(folder.path, offsets)).is_empty:
        for file in batch.files:
            offsets[file.name] = file.end
            for event in file.events:
                if isinstance(event, CheckpointEvent):
                    (kept.discard if event.removed else kept.add)(event.path)
    return bool(kept)
