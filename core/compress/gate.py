"""The accuracy gate: an INT8 model is accepted by what it scored, or rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What compressing did to a model, measured before and after on the same test samples.

    Attributes:
        correct_before: Test samples the original got right, of ``samples``.
        correct_after: Test samples the INT8 model got right.
        fixed: Samples that only the INT8 model got right; ``broken``, those that only the original got right.
        size_before_bytes: Size of the original's files; ``size_after_bytes`` of the INT8 model's.
        max_drop_points: The gate.
    """

    samples: int
    correct_before: int
    correct_after: int
    fixed: int
    broken: int
    size_before_bytes: int
    size_after_bytes: int
    max_drop_points: float

    @property
    def accuracy_before(self) -> float:
        """Share of right answers of the original, 0 to 1."""
        return self.correct_before / self.samples

    @property
    def accuracy_after(self) -> float:
        """Share of right answers of the INT8 model, 0 to 1."""
        return self.correct_after / self.samples

    @property
    def drop_points(self) -> float:
        """Loss of accuracy in percentage points; negative for a gain."""
        return 100.0 * (self.correct_before - self.correct_after) / self.samples

    @property
    def is_accepted(self) -> bool:
        """True when the loss is within the gate."""
        return self.drop_points <= self.max_drop_points + 1e-9

    @property
    def word(self) -> str:
        """``accept`` or ``reject``."""
        return "accept" if self.is_accepted else "reject"


def judge(
    labels: NDArray[np.int64],
    logits: tuple[NDArray[np.float32], NDArray[np.float32]],
    sizes_bytes: tuple[int, int],
    max_drop_points: float,
) -> Verdict:
    """Compare the answers of the original and the INT8 model.

    Args:
        labels: True classes, shape (n,).
        logits: Scores of the original and of the INT8 model, each of shape (n, classes).
        sizes_bytes: Sizes of the original and of the INT8 model.
        max_drop_points: The gate in percentage points.
    """
    before, after = (scores.argmax(axis=1) == labels for scores in logits)
    return Verdict(
        samples=len(labels),
        correct_before=int(before.sum()),
        correct_after=int(after.sum()),
        fixed=int((after & ~before).sum()),
        broken=int((before & ~after).sum()),
        size_before_bytes=sizes_bytes[0],
        size_after_bytes=sizes_bytes[1],
        max_drop_points=max_drop_points,
    )
