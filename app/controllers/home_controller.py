"""What the Home page shows: live runs, runs that need attention, recent runs, and small curves of the live ones.

Everything is read in one background call; live updates change single cards between two reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.notices import notify
from app.controllers.ops import Op
from app.controllers.services import Services
from app.viewmodels.wording import main_metric
from core.contracts.errors import UserError
from core.contracts.ids import RunId
from core.contracts.notices import Notice, Severity
from core.contracts.runs import RunQuery, RunSummary, RunUpdate
from core.contracts.states import TERMINAL_STATES, RunState

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace

OPEN_STATES = tuple(state for state in RunState if state not in TERMINAL_STATES)
QUICK_START = "quickstart"
MAX_CARDS = 6
MAX_ATTENTION = 4
MAX_RECENT = 8
ATTENTION_AGE_S = 7 * 86_400.0
SPARK_POINTS = 160
REFRESH_MS = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spark:
    """A small curve: the metric's name and its values, oldest first."""

    key: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeSnapshot:
    """All that Home shows.

    Attributes:
        live: Runs that go on, newest first; ``live_total`` counts those beyond the cards, too.
        attention: Failed and lost runs of the last week.
        recent: Newest runs that ended.
        total: Runs in the history.
        sparks: Small curves of live runs.
        kind_titles: Name for people of each kind of run.
    """

    live: tuple[RunSummary, ...] = ()
    live_total: int = 0
    attention: tuple[RunSummary, ...] = ()
    recent: tuple[RunSummary, ...] = ()
    total: int = 0
    sparks: dict[RunId, Spark] = field(default_factory=dict[RunId, Spark])
    kind_titles: dict[str, str] = field(default_factory=dict[str, str])

    def kind_title(self, kind: str) -> str:
        """Return the name of a kind for people; its tag where it is not installed."""
        return self.kind_titles.get(kind, kind)


class HomeController(QObject):
    """Reads for Home and acts on its buttons.

    Signals:
        loaded: A ``HomeSnapshot``.
        load_failed: A ``Notice``.
        run_updated: The ``RunSummary`` of a live run.
    """

    loaded = Signal(object)
    load_failed = Signal(object)
    run_updated = Signal(object)

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._services = services
        self._loading: Op[HomeSnapshot] | None = None
        self._launching: Op[RunId] | None = None
        self._is_stale = False
        self._is_active = False
        self._kind_titles: dict[str, str] = {}
        self._timer = QTimer(self, interval=REFRESH_MS)
        self._timer.timeout.connect(self.refresh)
        services.runs_changed.connect(self.refresh)
        services.run_updated.connect(self._on_run_updated)

    def activate(self) -> None:
        """Read now, and go on while the page is seen."""
        self._is_active = True
        self.refresh()
        self._timer.start()

    def deactivate(self) -> None:
        """Stop reading."""
        self._is_active = False
        self._timer.stop()

    def refresh(self) -> None:
        """Read everything; a request during a read is answered by one more read after it."""
        if not self._is_active or not self._services.is_open:
            return
        if self._loading is not None:
            self._is_stale = True
            return
        workspace, titles = self._services.workspace, self._kind_titles
        self._loading = (
            Op(lambda: read_home(workspace, titles))
            .succeeded(self._on_loaded)
            .failed(self.load_failed.emit)
            .finished(self._on_load_finished)
            .start()
        )

    def stop(self, run_id: RunId) -> None:
        """Ask a run to stop: it saves and ends."""
        workspace = self._services.workspace
        Op(lambda: workspace.stop(run_id)).finished(self._services.note_runs_changed).start()

    def resume(self, run_id: RunId) -> None:
        """Start an ended run again from its last checkpoint."""
        workspace = self._services.workspace
        Op(lambda: workspace.resume(run_id)).failed(self._on_resume_failed).finished(
            self._services.note_runs_changed
        ).start()

    def start_quick_start(self) -> None:
        """Launch the quick start with its defaults and open its page; a second call meanwhile does nothing."""
        if self._launching is not None:
            return
        workspace = self._services.workspace
        self._launching = (
            Op(lambda: workspace.launch(QUICK_START, {}))
            .succeeded(self._on_launched)
            .finished(self._on_launch_done)
            .start()
        )

    def _on_launch_done(self) -> None:
        self._launching = None

    def _on_launched(self, run_id: RunId) -> None:
        self._services.note_runs_changed()
        self._services.router.open_run(run_id)

    def _on_resume_failed(self, notice: Notice) -> None:
        notify(Severity.WARNING, notice.message, notice.hint, details=notice.details)

    def _on_loaded(self, snapshot: HomeSnapshot) -> None:
        self._kind_titles = snapshot.kind_titles
        self.loaded.emit(snapshot)

    def _on_load_finished(self) -> None:
        self._loading = None
        if self._is_stale:
            self._is_stale = False
            self.refresh()

    def _on_run_updated(self, update: RunUpdate) -> None:
        if self._is_active:
            self.run_updated.emit(update.summary)


def read_home(workspace: Workspace, kind_titles: dict[str, str]) -> HomeSnapshot:
    """Read a snapshot. Any thread but the UI's. The names of the kinds are found when none are given."""
    moment = time.time()
    live = workspace.runs(RunQuery(states=OPEN_STATES, limit=MAX_CARDS))
    trouble = workspace.runs(RunQuery(states=(RunState.FAILED, RunState.LOST), limit=MAX_ATTENTION))
    ended = workspace.runs(RunQuery(states=tuple(TERMINAL_STATES), limit=MAX_RECENT))
    attention = tuple(row for row in trouble.rows if moment - (row.ended or row.created) < ATTENTION_AGE_S)
    return HomeSnapshot(
        live=live.rows,
        live_total=live.total,
        attention=attention,
        recent=ended.rows,
        total=live.total + ended.total,
        kind_titles=kind_titles or {info.kind: info.title for info in workspace.kinds()},
        sparks={row.run_id: spark for row in live.rows if (spark := _spark(workspace, row)) is not None},
    )


def _spark(workspace: Workspace, summary: RunSummary) -> Spark | None:
    found = main_metric(summary)
    if found is None:
        return None
    try:
        curve = workspace.curve(summary.run_id, found[0], points=SPARK_POINTS)
    except UserError:  # a final result without a curve of its own
        return None
    return Spark(key=found[0], values=tuple(float(value) for value in curve.value))
