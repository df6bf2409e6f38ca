"""Live readings of this host, once a second, taken off the UI thread; keeps the last ten minutes for charts.

A slow reading never piles up: the next one starts only when the last has come back. Nothing is read while nobody looks.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.ops import Op
from app.controllers.services import Services
from app.viewmodels.reading_history import ReadingHistory, TelemetrySample
from core.contracts.notices import Notice
from core.contracts.telemetry import HardwareReport, Sampler

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace

PERIOD_MS = 1000
SECONDS_KEPT = 600


class TelemetryController(QObject):
    """Takes readings.

    Attributes:
        history: The readings kept.
        report: What this host is made of, None until probed.

    Signals:
        sampled: A ``TelemetrySample``.
        probed: A ``HardwareReport``.
        probe_failed: A ``Notice``.
    """

    sampled = Signal(object)
    probed = Signal(object)
    probe_failed = Signal(object)

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._services = services
        self.history = ReadingHistory(SECONDS_KEPT)
        self.report: HardwareReport | None = None
        self._sampler: Sampler | None = None
        self._reading: Op[TelemetrySample] | None = None
        self._is_probing = False
        self._timer = QTimer(self, interval=PERIOD_MS)
        self._timer.timeout.connect(self._take_reading)
        services.opened.connect(self._on_opened)

    def resume(self) -> None:
        """Go on reading, once the workspace is open."""
        if self._services.is_open and not self._timer.isActive():
            self._timer.start()
            self._take_reading()

    def pause(self) -> None:
        """Stop reading: nobody looks."""
        self._timer.stop()

    def probe(self) -> None:
        """Look at the hardware anew; ``probed`` or ``probe_failed`` follows."""
        if self._is_probing or not self._services.is_open:
            return
        self._is_probing = True
        Op(self._services.workspace.hardware).succeeded(self._on_probed).failed(self.probe_failed.emit).finished(
            self._on_probe_finished
        ).start()

    def close(self) -> None:
        """Stop for good."""
        self._timer.stop()
        if self._sampler is not None and self._reading is None:
            self._sampler.close()

    def _on_opened(self, _workspace: Workspace) -> None:
        self.resume()

    def _take_reading(self) -> None:
        if self._reading is None:
            self._reading = (
                Op(self._read)
                .succeeded(self._on_read)
                .failed(self._on_read_failed)
                .finished(self._on_read_done)
                .start()
            )

    def _read(self) -> TelemetrySample:
        if self._sampler is None:
            self._sampler = self._services.workspace.sampler()
        return TelemetrySample(ts=time.time(), values=self._sampler.sample())

    def _on_read(self, sample: TelemetrySample) -> None:
        self.history.append(sample)
        self.sampled.emit(sample)

    def _on_read_failed(self, notice: Notice) -> None:
        # A host whose readings fail once would fail every second: one notice, then silence until the next start.
        self._timer.stop()
        self.probe_failed.emit(notice)

    def _on_read_done(self) -> None:
        self._reading = None

    def _on_probed(self, report: HardwareReport) -> None:
        self.report = report
        self.probed.emit(report)

    def _on_probe_finished(self) -> None:
        self._is_probing = False
