"""The sweep of the run on its page: its report, read anew while it goes on, never more than once a second."""

from __future__ import annotations

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.ops import Op
from app.controllers.services import Services
from core.contracts.ids import RunId
from core.contracts.notices import Notice
from core.contracts.runs import RunSummary
from core.contracts.sweeps import SWEEP_KIND, SweepReport

PERIOD_MS = 1000


class SweepController(QObject):
    """Follows the report of one sweep. Thread: UI.

    Signals:
        loaded: A ``SweepReport`` that differs from the last.
        failed: A ``Notice``: there is no report, or it cannot be read.
    """

    loaded = Signal(object)
    failed = Signal(object)

    def __init__(self, services: Services, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self._run_id: RunId | None = None
        self._reading: Op[SweepReport] | None = None
        self._report: SweepReport | None = None
        self._is_seen = False
        self._is_stale = False
        self._timer = QTimer(self, interval=PERIOD_MS, singleShot=True)
        self._timer.timeout.connect(self._on_tick)

    def close(self) -> None:
        """Follow none."""
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self._report = self._run_id = None
        self._is_stale = False
        self._timer.stop()

    def resume(self) -> None:
        """Go on reading: the page is seen."""
        self._is_seen = True
        self._read_soon()

    def pause(self) -> None:
        """Read no more; what changes meanwhile is read when the page is seen again."""
        self._is_seen = False
        self._timer.stop()

    def on_summary(self, summary: RunSummary) -> None:
        """Take the newest summary of the run on the page; something new of a sweep means its report may be new, too."""
        if summary.kind != SWEEP_KIND:
            return
        if summary.run_id != self._run_id:
            self.close()
            self._run_id = summary.run_id
        self._is_stale = True
        self._read_soon()

    def _read_soon(self) -> None:
        if self._is_seen and self._is_stale and self._reading is None and not self._timer.isActive():
            self._read()

    def _read(self) -> None:
        workspace, run_id = self._services.workspace, self._run_id
        if run_id is None:
            return
        self._is_stale = False
        self._reading = (
            Op(lambda: workspace.sweep(run_id))
            .succeeded(self._on_read)
            .failed(self._on_failed)
            .finished(self._on_done)
            .start()
        )

    def _on_read(self, report: SweepReport) -> None:
        if report != self._report:
            self._report = report
            self.loaded.emit(report)

    def _on_failed(self, notice: Notice) -> None:
        if self._report is None:
            self.failed.emit(notice)

    def _on_done(self) -> None:
        self._reading = None
        if self._is_seen:
            self._timer.start()

    def _on_tick(self) -> None:
        self._read_soon()
