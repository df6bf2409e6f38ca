"""Result tables that several classifiers publish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.contracts.events import Cell
    from core.contracts.worker import RunContext

_LARGEST_TABLE = 30


def publish_confusion(
    context: RunContext, classes: Sequence[str], labels: NDArray[np.int64], predicted: NDArray[np.int64]
) -> None:
    """Publish who is taken for whom: the whole matrix, or for many classes the most frequent mistakes.

    Args:
        context: The run.
        classes: Names in the order of the class numbers.
        labels: True class of each sample, shape (n,).
        predicted: Class that the model gave, shape (n,).
    """
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, predicted, labels=range(len(classes)))
    if len(classes) <= _LARGEST_TABLE:
        rows: list[list[Cell]] = [
            [name, *(int(count) for count in row)] for name, row in zip(classes, matrix, strict=True)
        ]
        context.table("Confusion (rows: true class)", ["true", *classes], rows)
        return
    mistakes = [
        (int(matrix[true, taken]), classes[int(true)], classes[int(taken)])
        for true, taken in zip(*matrix.nonzero(), strict=True)
        if true != taken
    ]
    most: list[list[Cell]] = [
        [true, taken, count] for count, true, taken in sorted(mistakes, reverse=True)[:_LARGEST_TABLE]
    ]
    context.table("Most frequent mistakes", ["true", "taken for", "samples"], most)
