"""Tells the user once when a run that was seen going on ends: the sentence, the remedy, and the run to open."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.controllers.services import Services
from app.viewmodels.wording import metric_text, span_text
from core.contracts.ids import RunId
from core.contracts.notices import Notice, Severity
from core.contracts.runs import RunSummary, RunUpdate
from core.contracts.states import RunState


class RunEndings(QObject):
    """Watches live runs for their end.

    Signals:
        ended: A ``Notice`` for a run that ended just now; never for one that had ended before this start.
    """

    ended = Signal(object)

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._live: set[RunId] = set()
        services.run_updated.connect(self._on_run_updated)

    def _on_run_updated(self, update: RunUpdate) -> None:
        summary = update.summary
        if not summary.state.is_terminal:
            self._live.add(summary.run_id)
        elif summary.run_id in self._live:
            self._live.discard(summary.run_id)
            self.ended.emit(ending_notice(summary))


def ending_notice(summary: RunSummary) -> Notice:
    """Return what to say about a run that ended."""
    name = summary.name or summary.run_id
    if summary.state is RunState.SUCCEEDED:
        took = f" in {span_text(summary.duration_s)}" if summary.duration_s is not None else ""
        return Notice(
            severity=Severity.SUCCESS,
            message=f"{name} finished{took}.",
            hint=metric_text(summary),
            run_id=summary.run_id,
        )
    if summary.state is RunState.STOPPED:
        return Notice(severity=Severity.INFO, message=f"{name} was stopped.", hint=summary.hint, run_id=summary.run_id)
    verb = "was lost" if summary.state is RunState.LOST else "failed"
    reason = f": {summary.message}" if summary.message else "."
    return Notice(severity=Severity.ERROR, message=f"{name} {verb}{reason}", hint=summary.hint, run_id=summary.run_id)
