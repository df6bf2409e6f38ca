"""Checkpoints of a run laid out over ranks: saved beside the training, read into any other layout.

Tensors go by whole-model names through ``torch.distributed.checkpoint``: every rank writes its shards, copied first, in a
background thread with a gloo group of its own; rank 0 then hashes, renames and prunes through the run context. There is
never more than one save under way. Where nodes share no disk, rank 0 is sent the files of the others; a resume sends them
back. When to save, and what the small state means, is the loop's. Thread: the main one.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.ids import RunId
from core.contracts.worker import RunContext
from core.jobs.checkpoints import MANIFEST, all_checkpoints, is_intact, read_manifest
from core.runlog.layout import RunLayout
from core.settings.home import Home
from core.train.engine import checkpoint_files as files
from core.train.engine.agreement import Agreement, gloo_group
from core.train.engine.contracts import Mesh
from core.train.engine.node_files import NodeFiles
from core.train.specs.training import TrainingSpec

_NAMED_DIFFERENCES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a checkpoint is made of.

    Attributes:
        step: Optimizer steps done.
        tensors: Weights, optimizer state, averages by name; as laid out, and copied before the training goes on.
        training: Plain values that are the same on every rank.
        own: Plain values and small tensors of this rank.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    training: Mapping[str, Any]
    own: Mapping[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        context: The run.
        mesh: Where this rank stands.
        agreement: Exchanges between ranks on the main thread.
        spec: How many are kept, and whether they are written beside the training.

    Attributes:
        blocked_s: Seconds that the last ``save`` held the training up.
    """

    def __init__(self, context: RunContext, mesh: Mesh, agreement: Agreement, spec: TrainingSpec) -> None:
        self._context = context
        self._mesh = mesh
        self._agreement = agreement
        self._spec = spec.checkpoints
        self._group: dist.ProcessGroup | None = None
        if mesh.is_distributed:
            self._group = gloo_group(spec.parallel.timeout_s)
        else:
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        pinned = mesh.device.type == "cuda"
        self._stager = DefaultStager(StagingOptions(pinned, False, False, pinned))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._nodes = NodeFiles(context, mesh, agreement, self._group)
        self.blocked_s = 0.0

    @property
    def failed(self) -> bool:
        """True when the save under way has ended in an error on this rank; ``wait`` raises it."""
        pending = self._pending
        return pending is not None and pending.done() and pending.exception() is not None

    def save(self, snapshot: Snapshot, keep_steps: Collection[int] = ()) -> None:
        """Begin to save a checkpoint, once an earlier save is done; called on every rank.

        Args:
            snapshot: What to save.
            keep_steps: Steps whose checkpoints stay besides the newest.

        Raises:
            EnvironmentProblem: The disk is full or cannot be written; also about the earlier save.
        """
        self.wait()
        started = time.perf_counter()
        folder = self._begin(snapshot)
        # The copies: from here on the training may change the tensors.
        staged = cast("dict[str, torch.Tensor]", self._stager.stage(dict(snapshot.tensors)))
        self._pending = self._thread.submit(self._write, staged, snapshot.step, folder, tuple(keep_steps))
        if not self._spec.asynchronous:
            self.wait()
        self.blocked_s = time.perf_counter() - started

    def _begin(self, snapshot: Snapshot) -> Path:
        """Make the folder on every node and write the small files; return it."""
        problem: EnvironmentProblem | None = None
        made = ""
        try:
            if self._mesh.is_main:
                begun = self._context.new_checkpoint(snapshot.step)
                made = begun.relative_to(self._context.run_dir).as_posix()
                training = {**snapshot.training, "format": files.FORMAT, "step": snapshot.step}
                files.save_small(training, begun / files.TRAINING_FILE)
        except OSError as error:
            problem = files.write_problem(error, snapshot.step, self._context.run_dir)
        made = self._agreement.broadcast(made)
        folder = self._context.run_dir / made
        if made and problem is None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                files.save_small(snapshot.own, folder / files.rank_file(self._mesh.rank))
            except OSError as error:
                problem = files.write_problem(error, snapshot.step, folder)
        # Where no folder could be made there is none to remove: without ``made``, ``folder`` is the run's own.
        self._raise_if_any(problem, folder if made else None)
        return folder

    def _raise_if_any(self, problem: EnvironmentProblem | None, begun: Path | None) -> None:
        """Raise on every rank what went wrong on one, with what was begun removed."""
        found = [p for p in self._agreement.gather_objects(_described(problem)) if p[0]]
        if not found:
            return
        if begun is not None:
            shutil.rmtree(begun, ignore_errors=True)
        if problem is not None:
            raise problem
        raise _problem_of(found[0])

    def _write(self, staged: dict[str, torch.Tensor], step: int, folder: Path, keep_steps: tuple[int, ...]) -> None:
        """Write the shards and put the checkpoint into place. Thread: the background one, on every rank."""
        problem: EnvironmentProblem | None = None
        try:
            save(staged, checkpoint_id=folder, process_group=self._group, no_dist=self._group is None)
            self._nodes.collect(folder)
            if self._mesh.is_main:
                self._context.commit_checkpoint(step, keep_last=self._spec.keep_last, keep_steps=keep_steps)
        except (CheckpointException, OSError, RuntimeError) as error:
            problem = files.write_problem(error, step, folder)
        finally:
            staged.clear()
        found = [_described(problem)]
        if self._group is not None:
            held: list[tuple[str, str, int] | None] = [None] * self._mesh.world
            dist.all_gather_object(held, found[0], group=self._group)
            found = [entry for entry in held if entry is not None]
        failures = [entry for entry in found if entry[0]]
        if failures:
            shutil.rmtree(folder, ignore_errors=True)
            raise problem or _problem_of(failures[0])
        self._nodes.clear(folder)

    def wait(self) -> None:
        """Wait for the save under way.

        Raises:
            EnvironmentProblem: It failed, here or on another rank.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """End the background thread once it is done; what a failed save had to say is not said again."""
        self._thread.shutdown(wait=True)
        self._stager.close()

    def of_step(self, step: int) -> Path | None:
        """Return the folder of this run's checkpoint of a step; None when it is not there or damaged. On every rank."""
        path = ""
        if self._mesh.is_main:
            folders = RunLayout(self._context.run_dir).checkpoints.glob("step-*")
            found = next((f for f in folders if f.name.removeprefix("step-").lstrip("0") == str(step)), None)
            path = str(found) if found is not None and not _is_damaged(found) else ""
        path = self._agreement.broadcast(path)
        return self._nodes.localize(Path(path)) if path else None

    def before(self, step: int) -> Path | None:
        """Return the folder of this run's newest intact checkpoint before a step, else of its oldest; on every rank."""
        path = ""
        if self._mesh.is_main:
            kept = all_checkpoints(RunLayout(self._context.run_dir).checkpoints)
            earlier = [entry for entry in kept if entry[1].step < step]
            later = [entry for entry in reversed(kept) if entry[1].step >= step]
            path = next((str(found) for found, manifest in earlier + later if is_intact(found, manifest)), "")
        path = self._agreement.broadcast(path)
        return self._nodes.localize(Path(path)) if path else None

    def newest(self) -> Path | None:
        """Return the folder to go on from: this run's newest intact checkpoint, else the one it starts from; on every rank.

        Raises:
            UserError: There is none where it is to start from.
        """
        found: tuple[str, tuple[str, str] | None] = ("", None)
        if self._mesh.is_main:
            latest = self._context.latest_checkpoint()
            if latest is not None:
                found = (latest.path, None)
            elif self._spec.start_from:
                try:
                    found = (str(start_folder(self._spec.start_from, self._context.home)), None)
                except UserError as error:
                    found = ("", (error.message, error.hint))
        path, problem = self._agreement.broadcast(found)
        if problem is not None:
            raise UserError(*problem)
        return self._nodes.localize(Path(path)) if path else None

    def load(self, folder: Path, tensors: dict[str, torch.Tensor], *, weights: str = "model") -> None:
        """Read tensors of a checkpoint in place, whatever layout it was saved in; on every rank.

        Args:
            folder: The checkpoint.
            tensors: By name, as laid out here.
            weights: Prefix of the tensors that must all be wanted; others of the checkpoint may stay unread.

        Raises:
            UserError: It is of another model; what differs is named.
            EnvironmentProblem: It is damaged.
        """
        metadata = files.load_metadata(folder)
        held = {n: e for n, e in metadata.state_dict_metadata.items() if isinstance(e, TensorStorageMetadata)}
        own = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        everyone: dict[str, tuple[int, ...]] = {}
        for shapes in self._agreement.gather_objects(own):
            everyone.update(shapes)
        differences = _differences({name: tuple(entry.size) for name, entry in held.items()}, everyone, weights)
        if differences:
            named = "; ".join(differences[:_NAMED_DIFFERENCES])
            more = len(differences) - _NAMED_DIFFERENCES
            named += f"; and {more} more" if more > 0 else ""
            raise UserError(
                f"The checkpoint {folder} is of another model or optimizer: {named}.",
                "Use the model and optimizer it was made with, or start anew.",
            )
        try:
            reader = files.SafeReader(folder)
            load(tensors, storage_reader=reader, process_group=self._group, no_dist=self._group is None)
        except (CheckpointException, OSError, RuntimeError, ValueError) as error:
            raise EnvironmentProblem(
                f"The checkpoint {folder} is damaged: {str(_first_failure(error)).partition(chr(10))[0]}.",
                "Choose another checkpoint.",
            ) from error


def _described(problem: EnvironmentProblem | None) -> tuple[str, str, int]:
    """Return a problem as plain values: message, hint, errno of its cause."""
    if problem is None:
        return "", "", 0
    cause = problem.__cause__
    return problem.message, problem.hint, (cause.errno or 0) if isinstance(cause, OSError) else 0


def _problem_of(described: tuple[str, str, int]) -> EnvironmentProblem:
    message, hint, number = described
    problem = EnvironmentProblem(message, hint)
    if number:
        # The cause tells the worker's top frame that it was the disk.
        problem.__cause__ = OSError(number, message)
    return problem


def _first_failure(error: BaseException) -> BaseException:
    if isinstance(error, CheckpointException):
        return next((failure[0] for failure in error.failures.values()), error)
    return error


def _differences(held: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], weights: str) -> list[str]:
    """Return in words how the tensors of a checkpoint differ from those of the run; optional ones are left out."""
    words: list[str] = []
    for name in sorted(wanted.keys() | held.keys()):
        if name not in held:
            words.append(f"it has no {name}")
        elif name not in wanted:
            # Only weights must all be wanted: an average or a moment may be left unread.
            if name.startswith(f"{weights}."):
                words.append(f"it has {name}, which the model has not")
        elif held[name] != wanted[name]:
            words.append(f"{name} is {held[name]} there and {wanted[name]} here")
    return words


def _is_damaged(folder: Path) -> bool:
    """Tell whether the files of a checkpoint are not those that its manifest speaks of; without one that is not known."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        return not is_intact(folder, read_manifest(folder))
    except (OSError, msgspec.MsgspecError):
        return True


def start_folder(start_from: str, home: Path) -> Path:
    """Return the checkpoint folder that ``start_from`` names: itself, or the newest intact one of a run.

    Raises:
        UserError: There is none.
    """
    folder = Path(start_from).expanduser()
    if folder.is_dir():
        if _is_damaged(folder):
            raise UserError(
                f"The checkpoint {folder} is damaged: its files do not hash as its manifest says.", "Choose another."
            )
        return folder
    run_folder = Home(home).run_dir(RunId(start_from)) if "/" not in start_from else folder
    for found, manifest in all_checkpoints(run_folder / "checkpoints"):
        if is_intact(found, manifest):
            return found
    raise UserError(
        f"There is no folder {start_from!r}, nor a run of that id with an intact checkpoint.",
        "Choose a folder named step-... below a run's checkpoints, or a run's id.",
    )
