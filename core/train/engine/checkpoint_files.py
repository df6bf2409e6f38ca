"""Reads and writes the files of one checkpoint; knows nothing of when, or of the model.

A checkpoint folder holds shards and ``.metadata`` of ``torch.distributed.checkpoint`` (tensors by whole-model name, so that
any layout can read them), ``training.pt`` (position, scaler, guard, ...) and ``rank-NNNNN.pt`` (random generators of a
rank). Nothing is unpickled that could run code: the small files are read with ``weights_only``, and ``.metadata`` by a
reader that admits the classes it is made of and no others.
"""

from __future__ import annotations

import errno
import io
import pickle
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from core.contracts.errors import EnvironmentProblem, UserError

FORMAT = 2
TRAINING_FILE = "training.pt"
_METADATA_MODULE = "torch.distributed.checkpoint.metadata"
_METADATA_CLASSES = (
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "Metadata",
    "MetadataIndex",
    "StorageMeta",
    "TensorProperties",
    "TensorStorageMetadata",
    "_MEM_FORMAT_ENCODING",
)
# Full names, and no dotted ones: a module's own imports (such as ``os.system``) must not be reached through it.
_SAFE = {
    *((_METADATA_MODULE, name) for name in _METADATA_CLASSES),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
}
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOW_SPACE_BYTES = 1 << 20


class _SafeUnpickler(pickle.Unpickler):
    """Unpickles metadata of a checkpoint and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) in _SAFE or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a checkpoint")


class SafeReader(FileSystemReader):
    """A reader of shards whose metadata cannot run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the metadata of the checkpoint."""
        del args, kwargs
        metadata = _SafeUnpickler(io.BytesIO((Path(self.path) / ".metadata").read_bytes())).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it holds no metadata")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def rank_file(rank: int) -> str:
    """Return the name of a rank's own file."""
    return f"rank-{rank:05d}.pt"


def save_small(state: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    path.write_bytes(buffer.getbuffer())


def load_small(path: Path) -> dict[str, Any]:
    """Return what ``save_small`` wrote, tensors on the CPU.

    Raises:
        EnvironmentProblem: It cannot be read, or holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"{path} cannot be read: {error.strerror}.", "Choose another checkpoint, or check the disk."
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise EnvironmentProblem(
            f"{path} is damaged or is no file of a checkpoint.", "Choose another checkpoint."
        ) from error


def load_training(folder: Path) -> dict[str, Any]:
    """Return the state beside the tensors.

    Raises:
        UserError: The folder holds no checkpoint of this format.
        EnvironmentProblem: It cannot be read.
    """
    if not (folder / TRAINING_FILE).is_file():
        raise UserError(f"{folder} holds no checkpoint of a training.", "Choose a folder named step-...")
    state = load_small(folder / TRAINING_FILE)
    if state.get("format") != FORMAT:
        raise UserError(
            f"The checkpoint {folder} was written by another version of the program.", "Start the training anew."
        )
    return state


def load_metadata(folder: Path) -> Metadata:
    """Return names, shapes and places of the tensors of a checkpoint.

    Raises:
        EnvironmentProblem: It is missing or damaged.
    """
    try:
        return SafeReader(folder).read_metadata()
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, ImportError) as error:
        raise EnvironmentProblem(
            f"The list of tensors in the checkpoint {folder} is missing or damaged.", "Choose another checkpoint."
        ) from error


def random_states() -> dict[str, Any]:
    """Return the state of every random generator of this process: torch (all devices), numpy, Python."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put every random generator back where ``random_states`` found it."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))


def write_problem(error: BaseException, step: int, folder: Path) -> EnvironmentProblem:
    """Return the sentence about a checkpoint that could not be written, with its cause; a full disk is recognized.

    Args:
        error: What the writer raised, possibly wrapped by the checkpoint library for several ranks.
        step: Which checkpoint.
        folder: Where it was to go.
    """
    cause = _cause(error)
    if not isinstance(cause, OSError) and _is_full(folder):
        # The library's archive writer turns the disk's refusal into an error of its own.
        cause = OSError(errno.ENOSPC, "No space left on device")
    is_full = isinstance(cause, OSError) and cause.errno in _FULL_DISK
    reason = cause.strerror if isinstance(cause, OSError) else str(cause).partition("\n")[0]
    what = "The disk is full" if is_full else f"The disk cannot be written ({reason})"
    problem = EnvironmentProblem(
        f"{what}: the checkpoint of step {step} could not be saved.",
        "Free some space and resume the run; its older checkpoints are intact.",
    )
    problem.__cause__ = cause
    return problem


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, CheckpointException):
        return next((_cause(failure[0]) for failure in error.failures.values()), error)
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return found
        found = found.__cause__ or found.__context__
    return error


def _is_full(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free < _LOW_SPACE_BYTES
