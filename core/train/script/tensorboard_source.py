"""Metrics from a TensorBoard event file, read with TensorBoard's own incremental loader; torch is not imported."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.train.script.points import Point

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

_EVENTS_PER_POLL = 20_000


def _scalar(value: Any) -> float | None:
    """Return a summary value as a number, None for images, histograms and text."""
    from tensorboard.util import tensor_util

    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor"):
        return None
    array = tensor_util.make_ndarray(value.tensor)
    return float(array) if array.ndim == 0 and array.dtype.kind in "fiu" else None


class TensorBoardSource:
    """One event file; half-written records wait.

    Args:
        path: The file; its folder's name is the label.
    """

    def __init__(self, path: Path) -> None:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        self.label = path.parent.name
        self._loader: EventFileLoader = EventFileLoader(str(path))

    def poll(self) -> Iterator[Point]:
        """Yield the new scalars; neighbouring ones of the same step come together."""
        step, values = 0, dict[str, float]()
        for event in islice(self._loader.Load(), _EVENTS_PER_POLL):
            if not event.HasField("summary"):
                continue
            for value in event.summary.value:
                number = _scalar(value)
                if number is None:
                    continue
                if values and (event.step != step or value.tag in values):
                    yield Point(step, values)
                    values = {}
                step = int(event.step)
                values[value.tag] = number
        if values:
            yield Point(step, values)
