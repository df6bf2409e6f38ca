"""Fetches checkpoints and artifacts of a remote run into its mirror, on demand: resumed after a cut, verified by hash."""

from __future__ import annotations

from pathlib import Path

from core.contracts.agent import FileList, ListedFile, Listing
from core.contracts.errors import Cancelled, UserError
from core.contracts.hosts import Progress, Watcher
from core.contracts.placement import NodePlacement
from core.fleet.pool import HostPool
from core.jobs.checkpoints import MANIFEST
from core.runlog.layout import ARTIFACTS, CHECKPOINTS
from core.runlog.placements import read_placement

_LIST_LIMIT_S = 600.0


def fetch(pool: HostPool, run_dir: Path, what: str, watcher: Watcher) -> int:
    """Bring files of a run here that are not here yet; return how many bytes came.

    Args:
        pool: The connections.
        run_dir: The run's mirror.
        what: ``checkpoints``, ``artifacts``, or the path of one file or folder below the run directory.
        watcher: Shown the progress; may end it, and what is whole then stays.

    Raises:
        UserError: There is no such thing, or the run is on this machine.
        EnvironmentProblem: The host cannot be reached, or a file does not hash as it does there.
        Cancelled: The watcher ended it.
    """
    placement = read_placement(run_dir)
    if placement is None:
        raise UserError("This run is on this machine: its files are here.")
    head = placement.head
    watcher.report(Progress(stage=f"Looking at {head.host}"))
    folder = what.strip("/").split("/")[0] or what
    asked = Listing(run_id=run_dir.name, folder=folder, hashed=False)
    listed = pool.agent(head.host).ask(asked, FileList, _LIST_LIMIT_S).files
    wanted = [file for file in listed if file.path == what or file.path.startswith(f"{what.rstrip('/')}/")]
    if not wanted and what not in (CHECKPOINTS, ARTIFACTS):
        raise UserError(f"{head.host} has no {what!r} of this run.", "The run's page lists what there is.")
    return _bring(pool, head, run_dir, _in_order(wanted), watcher)


def _in_order(files: list[ListedFile]) -> list[ListedFile]:
    """Put what makes a checkpoint whole last, so that half of one is never taken for one."""
    return sorted(files, key=lambda file: (file.path.endswith(f"/{MANIFEST}"), file.path))


def _bring(pool: HostPool, head: NodePlacement, run_dir: Path, files: list[ListedFile], watcher: Watcher) -> int:
    link = pool.link(head.host)
    total = sum(file.size for file in files) or 1
    done = 0
    brought = 0
    for file in files:
        target = run_dir / file.path
        if not target.resolve().is_relative_to(run_dir.resolve()):
            raise UserError(f"{file.path!r} is outside of the run's directory.")

        def show(count: int, before: int = done, name: str = file.path) -> None:
            if watcher.is_cancelled():
                raise Cancelled
            watcher.report(Progress(stage=f"Fetching {name}", done=min((before + count) / total, 1.0)))

        show(0)
        if not (target.is_file() and target.stat().st_size == file.size and not file.path.endswith(MANIFEST)):
            target.parent.mkdir(parents=True, exist_ok=True)
            link.get(f"{head.run_dir}/{file.path}", str(target), show)
            brought += file.size
        done += file.size
    watcher.report(Progress(stage="Fetched", done=1.0))
    return brought
