"""Brings a run's newest checkpoint to the host that will be its head: from where it is, by way of this machine."""

from __future__ import annotations

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.events import CheckpointEvent
from core.contracts.hosts import Progress, Watcher
from core.contracts.placement import LOCAL_NODE
from core.fleet.copying import Copy
from core.fleet.fetch import fetch
from core.fleet.manifest import HashMemory, survey
from core.fleet.pool import HostPool
from core.fleet.run_folder import RunFolder
from core.jobs.checkpoints import hash_path
from core.runlog.tail import read_batch


def newest_checkpoint(pool: HostPool, folder: RunFolder, new_head: str, watcher: Watcher) -> Copy | None:
    """Return the newest checkpoint as a copy to make on the new head; None where it is there, or there is none.

    Call it while the run's placement is still that of the last attempt.

    Args:
        pool: The connections.
        folder: The run directory here; the checkpoint is brought there.
        new_head: Host of the next attempt's head.
        watcher: Sees the progress; may cancel.

    Raises:
        EnvironmentProblem: There are checkpoints, but on a host that does not answer.
        Cancelled: The user cancelled.
    """
    old_head = folder.placement().head.host or LOCAL_NODE
    if old_head == new_head or not (recorded := recorded_checkpoints(folder)):
        return None
    watcher.report(Progress(stage=f"Bringing the last checkpoint to {new_head}"))
    problem: EnvironmentProblem | UserError | None = None
    if old_head != LOCAL_NODE:
        try:
            fetch(pool, folder.path, "checkpoints", watcher)
        except (EnvironmentProblem, UserError) as error:
            problem = error
    newest = next((folder.path / event.path for event in recorded if _is_intact(folder, event)), None)
    if newest is None:
        reason = f" {problem.message}" if problem is not None else ""
        raise EnvironmentProblem(
            f"The checkpoints of the run are on {old_head} and could not be brought from there.{reason}",
            f"Resume it when {old_head} answers, or clone the run to begin anew.",
        )
    if new_head == LOCAL_NODE:
        return None
    manifest = survey(newest, (), HashMemory(folder.path / "hashes.json"), is_cancelled=watcher.is_cancelled)
    there = f"runs/{folder.run_id}/checkpoints/{newest.name}"
    return Copy(manifest=manifest, here=str(newest), there=there, is_shared=False)


def recorded_checkpoints(folder: RunFolder) -> list[CheckpointEvent]:
    """Return the checkpoints that the run recorded and did not remove again, newest step first.

    Sealed folders of our own tasks and single files of a script's are alike: an event gives their hash.
    """
    kept: dict[str, CheckpointEvent] = {}
    offsets: dict[str, int] = {}
    while not (batch := read_batch(folder.path, offsets)).is_empty:
        for file in batch.files:
            offsets[file.name] = file.end
            for event in file.events:
                if isinstance(event, CheckpointEvent) and event.removed:
                    kept.pop(event.path, None)
                elif isinstance(event, CheckpointEvent):
                    kept[event.path] = event
    return sorted(kept.values(), key=lambda event: event.step, reverse=True)


def _is_intact(folder: RunFolder, event: CheckpointEvent) -> bool:
    """Tell whether a checkpoint is here and still hashes as recorded."""
    path = folder.path / event.path
    try:
        is_inside = path.resolve().is_relative_to(folder.layout.checkpoints.resolve())
        return is_inside and path.exists() and hash_path(path) == (event.sha256, event.size_bytes)
    except OSError:
        return False
