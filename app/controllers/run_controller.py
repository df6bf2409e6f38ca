"""One run on its page: detail, curves at the resolution that is looked at, log by byte offset, live updates.

While a run goes on it is watched, and its points come with ``run_updated``; stored points are fetched once and meet
the live ones by step. One log read is under way at a time; a log that runs away is followed at its end only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.curve_table import write_shown
from app.controllers.notices import notify
from app.controllers.ops import Op
from app.controllers.services import Services
from app.viewmodels.curve_set import ChartPlan, CurveRequest, CurveSet
from app.viewmodels.metric_series import ViewRange
from core.contracts.ids import RunId
from core.contracts.notices import Notice, Severity
from core.contracts.runs import Curve, LogChunk, RunDetail, RunSummary, RunUpdate

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace

FIRST_POINTS = 2000
LOG_CHUNK_BYTES = 256_000
MAX_LOG_LAG_BYTES = 4 * LOG_CHUNK_BYTES
_DETAIL_MS = 700
_CURVES_PER_CALL = 8
_POLL_MS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvesLoaded:
    """Curves of a run that were fetched, in answer to these requests."""

    run_id: RunId
    requests: tuple[CurveRequest, ...]
    curves: tuple[Curve, ...]


class RunController(QObject):
    """The run that is open. Thread: UI.

    Attributes:
        curves: Its curves; loaded and extended here, drawn by the view.

    Signals:
        detail_loaded: A ``RunDetail``, again whenever it changed.
        summary_changed: The ``RunSummary`` after a live update.
        load_failed: A ``Notice``.
        curves_opened: The ``CurveSet`` of another run.
        curves_declared: New curves appeared.
        curves_changed: Set of keys whose points changed.
        log_reset: ``LogChunk``: show only this.
        log_appended: ``LogChunk`` that goes on where the last one ended.
        log_prepended: ``LogChunk`` that ends where the shown text begins.
    """

    detail_loaded = Signal(object)
    summary_changed = Signal(object)
    load_failed = Signal(object)
    curves_opened = Signal(object)
    curves_declared = Signal()
    curves_changed = Signal(object)
    log_reset = Signal(object)
    log_appended = Signal(object)
    log_prepended = Signal(object)

    def __init__(self, services: Services, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self.curves = CurveSet()
        self._run_id: RunId | None = None
        self._summary: RunSummary | None = None
        self._detail_op: Op[RunDetail] | None = None
        self._log_op: Op[LogChunk] | None = None
        self._log_end: int | None = None
        self._log_node = ""
        self._log_size = 0
        self._is_active = False
        self._asked: set[CurveRequest] = set()
        self._detail_later = QTimer(self, interval=_DETAIL_MS, singleShot=True)
        self._detail_later.timeout.connect(self._load_detail)
        self._log_poll = QTimer(self, interval=_POLL_MS)
        self._log_poll.timeout.connect(self.load_log_more)
        services.run_updated.connect(self._on_run_updated)

    @property
    def run_id(self) -> RunId | None:
        """The run that is open."""
        return self._run_id

    @property
    def summary(self) -> RunSummary | None:
        """Its newest summary."""
        return self._summary

    def open(self, run_id: RunId) -> None:
        """Open a run: its detail first, then curves and log."""
        self.close()
        self._run_id = run_id
        self.curves = CurveSet()
        self._asked.clear()
        self._log_end, self._log_size, self._log_node = None, 0, ""
        self.curves_opened.emit(self.curves)
        self._load_detail(watch=True)
        self._load_log_end()

    def refresh(self) -> None:
        """Read the detail anew, such as when the page is seen again."""
        self._load_detail()

    def close(self) -> None:
        """Let go of the run that is open."""
        if self._run_id is not None:
            self._services.unwatch(self._run_id)
        for op in (self._detail_op, self._log_op):
            if op is not None:
                op.cancel()
        self._detail_op = self._log_op = None
        self._detail_later.stop()
        self._log_poll.stop()
        self._run_id = None
        self._summary = None

    def load_details(self, requests: Sequence[CurveRequest]) -> None:
        """Fetch stretches of curves in more detail; what is already under way is not asked for twice."""
        new = [request for request in requests if request not in self._asked]
        self._asked.update(new)
        for start in range(0, len(new), _CURVES_PER_CALL):
            self._load_curves(tuple(new[start : start + _CURVES_PER_CALL]))

    def show_log_of(self, node: str) -> None:
        """Read the output of one node alone; an empty name stands for that of all nodes."""
        if self._run_id is None or node == self._log_node:
            return
        if self._log_op is not None:
            self._log_op.cancel()
            self._log_op = None
        self._log_node, self._log_end, self._log_size = node, None, 0
        self._load_log_end()

    def load_log_more(self) -> None:
        """Read on at the end of what was read, if there is more."""
        if self._run_id is None or self._log_op is not None or self._log_end is None:
            return
        if self._log_size - self._log_end > MAX_LOG_LAG_BYTES:
            self._load_log_end()
            return
        start = self._log_end
        self._read_log(start, LOG_CHUNK_BYTES, self._on_log_more)

    def load_log_before(self, start: int) -> None:
        """Read the part before byte ``start``."""
        if self._run_id is None or self._log_op is not None or start <= 0:
            return
        first = max(start - LOG_CHUNK_BYTES, 0)
        self._read_log(first, start - first, self.log_prepended.emit)

    def export_values(self, plan: ChartPlan, view: ViewRange, keys: Sequence[str], path: Path) -> None:
        """Write the values in view of a chart's curves as CSV, in the background."""
        windows = [(key, self.curves.best(key, view).window(view, self.curves.scale)) for key in keys]
        axis = view.axis
        Op(lambda: write_shown(path, axis, windows)).succeeded(
            lambda rows: notify(Severity.SUCCESS, f"Saved {rows} values of {plan.title}.", f"They are in {path}.")
        ).start()

    def _load_detail(self, *, watch: bool = False) -> None:
        if self._run_id is None:
            return
        if self._detail_op is not None:
            # What is being read may be older than what this call is about.
            self._detail_later.start()
            return
        services, workspace, run_id = self._services, self._services.workspace, self._run_id

        def read() -> RunDetail:
            # Watching begins before the stored part is read, so that no point falls between the two.
            if watch:
                services.watch(run_id)
            return workspace.detail(run_id)

        self._detail_op = Op(read).succeeded(self._on_detail).failed(self._on_detail_failed).start()

    def _on_detail(self, detail: RunDetail) -> None:
        self._detail_op = None
        self._summary = detail.summary
        new = self.curves.declare((*detail.metric_keys, *detail.telemetry_keys), detail.summary.started)
        self.detail_loaded.emit(detail)
        if new:
            self.curves_declared.emit()
            self.load_details([CurveRequest(key=key, first=None, last=None, points=FIRST_POINTS) for key in new])
        self._follow_log(detail.summary)

    def _on_detail_failed(self, notice: Notice) -> None:
        self._detail_op = None
        self.load_failed.emit(notice)

    def _load_curves(self, requests: tuple[CurveRequest, ...]) -> None:
        workspace, run_id = self._services.workspace, self._run_id
        if run_id is None:
            return
        telemetry = {request.key for request in requests if self.curves.series[request.key].is_telemetry}

        def fetch() -> CurvesLoaded:
            curves = tuple(
                _fetch(workspace, run_id, request, is_telemetry=request.key in telemetry) for request in requests
            )
            return CurvesLoaded(run_id=run_id, requests=requests, curves=curves)

        Op(fetch).succeeded(self._on_curves).finished(lambda: self._asked.difference_update(requests)).start()

    def _on_curves(self, loaded: CurvesLoaded) -> None:
        if loaded.run_id != self._run_id:
            return
        for request, curve in zip(loaded.requests, loaded.curves, strict=True):
            self.curves.load_detail(request, curve)
        self.curves_changed.emit({curve.key for curve in loaded.curves})

    def _on_run_updated(self, update: RunUpdate) -> None:
        if update.summary.run_id != self._run_id:
            return
        self._summary = update.summary
        # Not every update knows the size. After the end comes no other, so the log is then read to its end once more.
        if not self._log_node:
            self._log_size = max(self._log_size, update.log_size_bytes)
        if update.summary.state.is_terminal and self._log_end is not None:
            self._log_size = max(self._log_size, self._log_end + 1)
        known = set(self.curves.series)
        changed = self.curves.apply(update)
        self.summary_changed.emit(update.summary)
        new = set(self.curves.series) - known
        if new:
            self.curves_declared.emit()
            self.load_details(
                [CurveRequest(key=key, first=None, last=None, points=FIRST_POINTS) for key in sorted(new)]
            )
        if changed:
            self.curves_changed.emit(changed)
        if update.detail_changed or update.summary.state.is_terminal:
            self._detail_later.start()
        if self._log_end is not None and self._log_size > self._log_end:
            self.load_log_more()
        self._follow_log(update.summary)

    def _follow_log(self, summary: RunSummary) -> None:
        if summary.state.is_terminal:
            self._log_poll.stop()
        elif not self._log_poll.isActive():
            self._log_poll.start()

    def _load_log_end(self) -> None:
        self._read_log(-LOG_CHUNK_BYTES, LOG_CHUNK_BYTES, self._on_log_end)

    def _read_log(self, start: int, limit: int, on_chunk: object) -> None:
        workspace, run_id, node = self._services.workspace, self._run_id, self._log_node
        if run_id is None:
            return
        self._log_op = Op(lambda: workspace.log(run_id, start, limit, node)).finished(self._on_log_done)
        self._log_op.succeeded(on_chunk).failed(lambda _: None).start()  # pyright: ignore[reportArgumentType]

    def _on_log_done(self) -> None:
        self._log_op = None
        if self._log_end is not None and self._log_size > self._log_end:
            QTimer.singleShot(0, self, self.load_log_more)

    def _on_log_end(self, chunk: LogChunk) -> None:
        self._log_end, self._log_size = chunk.end, max(self._log_size, chunk.total)
        self.log_reset.emit(chunk)

    def _on_log_more(self, chunk: LogChunk) -> None:
        if chunk.total < (self._log_end or 0):
            # The file was begun anew, such as by a resume that cleared it.
            self._log_end, self._log_size = None, chunk.total
            QTimer.singleShot(0, self, self._load_log_end)
            return
        self._log_size = max(chunk.total, chunk.end)
        if chunk.end > (self._log_end or 0):
            self._log_end = chunk.end
            self.log_appended.emit(chunk)
        else:
            self._log_size = chunk.end


def _fetch(workspace: Workspace, run_id: RunId, request: CurveRequest, *, is_telemetry: bool) -> Curve:
    if request.first is None or request.last is None:
        return workspace.curve(run_id, request.key, points=request.points)
    if is_telemetry:
        return workspace.curve(run_id, request.key, first_ts=request.first, last_ts=request.last, points=request.points)
    first, last = max(int(request.first), 0), int(request.last) + 1
    return workspace.curve(run_id, request.key, first_step=first, last_step=last, points=request.points)
