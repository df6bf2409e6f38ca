"""Makes the run directory inside a pod from what is mounted there: spec, placement and code.

On a volume that the pods share, or that outlives them, what is there already is gone on with: the run's files, its
checkpoints, and the code it began with.
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem
from core.contracts.ids import RunId
from core.contracts.placement import Placement
from core.fleet.kubernetes import code_archive
from core.fleet.kubernetes.manifests import CODE_FILE
from core.jobs.reconcile import SILENT_AFTER_S
from core.jobs.records import write_record
from core.jobs.starting import last_attempt, prepare_attempt
from core.runlog.layout import PLACEMENT, SPEC, RunLayout
from core.settings.home import Home

_CODE = "code"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRun:
    """A node's part of a run, ready to be started.

    Attributes:
        attempt: 1 on the first start; one more each time pods go on with the same files.
        token: Tells this run directory from another one of the same run.
    """

    run_dir: Path
    node: str
    attempt: int
    token: str


def prepare(files: Path, home_path: Path, run_id: str, node: str) -> PodRun:
    """Make the run directory, or go on with the one that is there.

    Args:
        files: Folder with the mounted spec, placement and code.
        home_path: The home folder in the pod.
        run_id: The run.
        node: Name of this pod's node.

    Raises:
        EnvironmentProblem: Something is missing or cannot be written.
    """
    home = Home(home_path)
    home.prepare()
    run_dir = home.run_dir(RunId(run_id))
    layout = RunLayout(run_dir)
    try:
        layout.control.mkdir(parents=True, exist_ok=True)
        placement = msgspec.json.decode((files / PLACEMENT).read_bytes(), type=Placement)
        attempt = max(placement.attempt, *(_next_attempt(run_dir, one.node, of=node) for one in placement.nodes))
        _replace(layout.spec, (files / SPEC).read_bytes(), node)
        prepare_attempt(run_dir, node)
        place = {"work_dir": str(home.path), "run_dir": str(run_dir), "python": sys.executable}
        here = tuple(msgspec.structs.replace(one, **place) for one in placement.nodes)
        write_record(layout.placement, msgspec.structs.replace(placement, nodes=here, attempt=attempt))
        if (files / CODE_FILE).exists():
            _put_code(files / CODE_FILE, run_dir, node)
        return PodRun(run_dir=run_dir, node=node, attempt=attempt, token=_token(run_dir, node))
    except (OSError, msgspec.MsgspecError, tarfile.TarError) as error:
        raise EnvironmentProblem(
            f"The run directory cannot be made in the pod: {error}.",
            "Check that the volume claim can be written to by the image's user, and has space.",
        ) from error


def _next_attempt(run_dir: Path, node: str, *, of: str) -> int:
    """Return the number of a node's next attempt, or that of another node's which goes on and is to be joined.

    On a volume that the pods share one of them may have been replaced more often than another: nodes meet only when
    their numbers are the same.
    """
    latest, layout = last_attempt(run_dir, node), RunLayout(run_dir)
    if node == of or layout.exit_record(node).exists():
        return latest + 1
    try:
        is_going_on = time.time() - layout.supervisor(node).stat().st_mtime < SILENT_AFTER_S
    except FileNotFoundError:
        is_going_on = False
    return latest if is_going_on else latest + 1


def _replace(path: Path, data: bytes, node: str) -> None:
    """Write a file that the pods of a shared volume may all write at once."""
    partial = path.with_name(f".{path.name}.{node}.tmp")
    partial.write_bytes(data)
    partial.replace(path)


def _put_code(packed: Path, run_dir: Path, node: str) -> None:
    target = run_dir / _CODE
    if target.is_dir():
        return
    partial = run_dir / f".{_CODE}.{node}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    code_archive.unpack(packed.read_bytes(), partial)
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(partial, ignore_errors=True)  # another pod was first


def _token(run_dir: Path, node: str) -> str:
    path = run_dir / f"token.{node}"
    if not path.exists():
        _replace(path, secrets.token_hex(8).encode(), node)
    return path.read_text(encoding="ascii")
