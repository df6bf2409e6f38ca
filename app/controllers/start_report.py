"""Measures a start: from the birth of the process until the window is shown, Home has its data and the loop answers."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass

from PySide6.QtCore import QObject, QTimer, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class StartReport:
    """How a start went.

    Attributes:
        ready_ms: Milliseconds from the start of the process until the window could be used.
        painted_ms: Milliseconds until its first paint.
        rss_bytes: Resident memory of the process then.
        modules: Python modules loaded then.
        machine_learning: Machine-learning libraries among them; must be empty.
    """

    ready_ms: float
    painted_ms: float
    rss_bytes: int
    modules: int
    machine_learning: tuple[str, ...]

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps(asdict(self))


_HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "sklearn",
    "tensorflow",
)


class StartWatch(QObject):
    """Waits for a start to be complete.

    Signals:
        ready: A ``StartReport``, once.
    """

    ready = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._painted_at: float | None = None
        self._is_done = False

    def note_painted(self) -> None:
        """Say that the window was painted for the first time."""
        if self._painted_at is None:
            self._painted_at = time.time()

    def note_data(self) -> None:
        """Say that Home has its data; the report follows when the event loop has answered once more."""
        if not self._is_done:
            self._is_done = True
            QTimer.singleShot(0, self._report)

    def _report(self) -> None:
        import psutil

        process = psutil.Process()
        born = process.create_time()
        now = time.time()
        self.ready.emit(
            StartReport(
                ready_ms=round((now - born) * 1000, 1),
                painted_ms=round(((self._painted_at or now) - born) * 1000, 1),
                rss_bytes=process.memory_info().rss,
                modules=len(sys.modules),
                machine_learning=tuple(name for name in _HEAVY if name in sys.modules),
            )
        )
