"""Fetches checkpoints and artifacts of a remote run into its mirror, on demand: resumed after a cut, verified by hash."""

from __future__ import annotations

from pathlib import Path

from core.contracts.agent import FileList, ListedFile, Listing
from core.contracts.errors import Cancelled, UserError
from core.contracts.hosts import Progress, Watcher
from core.contracts.placement import NodePlacement
from core.fleet.pool import HostPool
from core.jobs.checkpoints import MANIFEST, hash_path
from core.runlog.layout import ARTIFACTS, CHECKPOINTS
from core.runlog.placements import HERE, read_placement

_LIST_LIMIT_S = 3600.0


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
    if head.host in HERE and Path(head.run_dir) == run_dir:
        return 0  # written right here: other machines have only further nodes of the run
    watcher.report(Progress(stage=f"Looking at {head.host}"))
    what = what.rstrip("/")
    wanted = _listed(pool, head, run_dir, what, hashed=False)
    if not wanted and what not in (CHECKPOINTS, ARTIFACTS):
        raise UserError(f"{head.host} has no {what!r} of this run.", "The run's page lists what there is.")
    if any(_is_as_large(run_dir / file.path, file) for file in wanted):
        watcher.report(Progress(stage="Comparing with what is here"))
        wanted = _listed(pool, head, run_dir, what, hashed=True)
    return _bring(pool, head, run_dir, wanted, watcher)


def _listed(pool: HostPool, head: NodePlacement, run_dir: Path, what: str, *, hashed: bool) -> list[ListedFile]:
    asked = Listing(run_id=run_dir.name, folder=what, hashed=hashed)
    listed = pool.agent(head.host).ask(asked, FileList, _LIST_LIMIT_S).files
    return [file for file in listed if file.path == what or file.path.startswith(f"{what}/")]


def _is_as_large(path: Path, file: ListedFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _is_here(path: Path, file: ListedFile) -> bool:
    return _is_as_large(path, file) and bool(file.sha256) and hash_path(path)[0] == file.sha256


def _in_order(files: list[ListedFile]) -> list[ListedFile]:
    """Put what makes a checkpoint whole last, so that half of one is never taken for one."""
    return sorted(files, key=lambda file: (file.path.endswith(f"/{MANIFEST}"), file.path))


def _bring(pool: HostPool, head: NodePlacement, run_dir: Path, files: list[ListedFile], watcher: Watcher) -> int:
    link = pool.link(head.host)
    total = sum(file.size for file in files) or 1
    done = 0
    brought = 0
    for file in _in_order(files):
        folder = file.path.split("/")[0]
        target = run_dir / file.path
        if not target.resolve().is_relative_to((run_dir / folder).resolve()):
            raise UserError(f"{head.host} names a file outside of {folder!r}: {file.path!r}.")

        def show(count: int, before: int = done, name: str = file.path) -> None:
            if watcher.is_cancelled():
                raise Cancelled
            watcher.report(Progress(stage=f"Fetching {name}", done=min((before + count) / total, 1.0)))

        show(0)
        if not _is_here(target, file):
            target.parent.mkdir(parents=True, exist_ok=True)
            link.get(f"{head.run_dir}/{file.path}", str(target), show)
            brought += file.size
        done += file.size
    watcher.report(Progress(stage="Fetched", done=1.0))
    return brought
