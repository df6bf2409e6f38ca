"""A teacher's answers on disk: float16 logits by sample number, computed when first asked for.

One memory-mapped file that all ranks of a node share: an answer that one of them wrote is read by the others, and one
that two write at the same time is the same. float16 keeps about three digits of a logit, which a softmax cannot tell
from the whole number in training. Importing this module imports torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from core.contracts.errors import EnvironmentProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from core.train.engine.contracts import Batch

NUMBERS = "sample_numbers"
_RESERVE_BYTES = 256 << 20
_BYTES = np.dtype(np.float16).itemsize
_LARGEST = float(np.finfo(np.float16).max)


class TeacherCache:
    """Answers of one teacher to the samples of one training part.

    Args:
        folder: Where the files go; what an earlier attempt left there is used.
        count: Samples of the part.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._shape: tuple[int, ...] = ()
        self._answers: NDArray[np.float16] | None = None
        self._known: NDArray[np.uint8] | None = None

    def get(self, batch: Batch, compute: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        """Return the teacher's logits for a batch, computing and keeping them when one of its samples is new.

        Args:
            batch: With ``sample_numbers``.
            compute: The teacher.

        Returns:
            Logits, float32, shape (batch, ..., classes), on the batch's device.

        Raises:
            EnvironmentProblem: There is no room for the answers of all samples.
        """
        numbers = batch[NUMBERS].cpu().numpy()
        # Rows padded to the longest of their batch have no fixed length; those longer or shorter are computed anew.
        length = tuple(batch["labels"].shape[1:])
        if self._answers is not None and length == self._shape[:-1] and self._all_known(numbers):
            return torch.from_numpy(self._answers[numbers].astype(np.float32)).to(batch[NUMBERS].device)
        logits = compute(batch).float()
        if self._answers is None:
            self._open(tuple(logits.shape[1:]))
        if tuple(logits.shape[1:]) == self._shape:
            self._keep(numbers, logits)
        return logits

    def _all_known(self, numbers: NDArray[np.int64]) -> bool:
        return self._known is not None and bool(self._known[numbers].all())

    def _keep(self, numbers: NDArray[np.int64], logits: torch.Tensor) -> None:
        assert self._answers is not None
        assert self._known is not None
        # -inf marks classes that cannot be; float16 has it too, while finite values beyond its range would become it.
        finite = logits.clamp(-_LARGEST, _LARGEST).where(logits.isfinite(), logits)
        self._answers[numbers] = finite.half().cpu().numpy()
        self._known[numbers] = 1

    def _open(self, shape: tuple[int, ...]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"logits-{'x'.join(map(str, shape))}"
        answers, known = self._folder / f"{name}.f16", self._folder / f"{name}.known"
        self._check_room(answers, shape)
        whole = (self._count, *shape)
        self._answers = np.memmap(_grown(answers, self._bytes(shape)), dtype=np.float16, mode="r+", shape=whole)
        self._known = np.memmap(_grown(known, self._count), dtype=np.uint8, mode="r+", shape=(self._count,))
        self._shape = shape

    def _bytes(self, shape: tuple[int, ...]) -> int:
        return self._count * int(np.prod(shape)) * _BYTES

    def _check_room(self, path: Path, shape: tuple[int, ...]) -> None:
        needed = self._bytes(shape)
        present = path.stat().st_blocks * 512 if path.exists() else 0
        free = shutil.disk_usage(self._folder).free
        if needed - present + _RESERVE_BYTES > free:
            raise EnvironmentProblem(
                f"The teacher's answers need {needed / 2**20:,.0f} MiB, but {self._folder} has {free / 2**20:,.0f} MiB free.",
                "Turn distillation.cache_logits off, so that the teacher answers anew at each step, or free some space.",
            )


def _grown(path: Path, size_bytes: int) -> Path:
    """Make a file as long as needed without losing what other ranks have written, and return it."""
    with path.open("ab") as file:
        file.truncate(size_bytes)
    return path
