"""All that a training needs to go on bit for bit, in one file per checkpoint.

Written with ``torch.save`` and read with ``weights_only=True``: tensors and plain values only, never code. Hashing,
renaming and pruning are the run context's part; the position in the data is the step itself.
"""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.contracts.errors import EnvironmentProblem
from core.contracts.worker import RunContext

FILE_NAME = "training.pt"


def random_states() -> dict[str, Any]:
    """Return the state of every random generator of this process: torch (all devices), numpy, Python."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Put every random generator back where ``random_states`` found it."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))


def _is_disk_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save_checkpoint(context: RunContext, step: int, state: dict[str, Any], keep_last: int) -> None:
    """Write the checkpoint of ``step`` and put it into place; older ones stay whole if this one fails.

    Raises:
        EnvironmentProblem: No space, or the disk cannot be written.
    """
    try:
        folder = context.new_checkpoint(step)
        with (folder / FILE_NAME).open("wb") as file:
            torch.save(state, file)
        context.commit_checkpoint(step, keep_last=keep_last)
    except OSError as error:
        what = "The disk is full" if _is_disk_full(error) else f"The disk cannot be written ({error.strerror})"
        raise EnvironmentProblem(
            f"{what}: the checkpoint of step {step} could not be saved.",
            "Free some space and resume the run; its older checkpoints are intact.",
        ) from error


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the state in a checkpoint folder, tensors on the CPU.

    Raises:
        EnvironmentProblem: It cannot be read.
    """
    try:
        return torch.load(folder / FILE_NAME, map_location="cpu", weights_only=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"The checkpoint {folder.name} cannot be read: {error.strerror}.", "Check the disk."
        ) from error
