"""The nodes of the run on its page: how they stand, its job in a cluster, and what only the hosts have (checkpoints).

Reads what is here in the run directory every two seconds while the page is seen; it asks no host for that. Events of a
Kubernetes cluster are asked for more rarely, on threads that may wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.ops import Op
from app.controllers.services import Services
from app.controllers.tasks import Task
from core.contracts.ids import RunId
from core.contracts.nodes import RunNodes
from core.contracts.placement import Placement
from core.contracts.runs import RunSummary

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace

PERIOD_MS = 2000
EVENTS_EVERY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesSnapshot:
    """How a run is spread.

    Attributes:
        nodes: Its nodes and ranks.
        placement: Where it is; None on this computer alone.
    """

    nodes: RunNodes
    placement: Placement | None = None

    @property
    def is_elsewhere(self) -> bool:
        """True when checkpoints and artifacts lie on other hosts."""
        placed = self.placement
        return placed is not None and (placed.engine != "direct" or any(node.host for node in placed.nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLine:
    """An event of the cluster: Unix seconds, what it is about, a sentence."""

    ts: float
    about: str
    text: str
    is_warning: bool


class NodesController(QObject):
    """Follows the nodes of one run. Thread: UI.

    Signals:
        loaded: A ``NodesSnapshot``.
        events_loaded: Tuple of ``ClusterLine``, oldest first.
        events_failed: A ``Notice``.
        fetch_started: A ``Task`` that brings files here.
    """

    loaded = Signal(object)
    events_loaded = Signal(object)
    events_failed = Signal(object)
    fetch_started = Signal(object)

    def __init__(self, services: Services, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self._run_id: RunId | None = None
        self._is_over = False
        self._tick = 0
        self._reading: Op[NodesSnapshot] | None = None
        self._events: Op[tuple[ClusterLine, ...]] | None = None
        self.snapshot: NodesSnapshot | None = None
        self.fetching: Task | None = None
        self._timer = QTimer(self, interval=PERIOD_MS)
        self._timer.timeout.connect(self._on_tick)

    def open(self, run_id: RunId) -> None:
        """Follow another run."""
        self.close()
        self._run_id = run_id
        self._tick = 0
        self.refresh()

    def close(self) -> None:
        """Follow none."""
        for op in (self._reading, self._events):
            if op is not None:
                op.cancel()
        self._reading = self._events = None
        self._run_id = None
        self.snapshot = None

    def resume(self) -> None:
        """Go on reading: the page is seen."""
        self._timer.start()
        self.refresh()

    def pause(self) -> None:
        """Read no more."""
        self._timer.stop()

    def on_summary(self, summary: RunSummary) -> None:
        """Take the run's newest summary; after its end there is one more look, then none until asked."""
        if summary.run_id == self._run_id and summary.state.is_terminal != self._is_over:
            self._is_over = summary.state.is_terminal
            self.refresh()

    def refresh(self) -> None:
        """Read now."""
        if self._run_id is None or self._reading is not None:
            return
        workspace, run_id = self._services.workspace, self._run_id
        self._reading = (
            Op(lambda: _read(workspace, run_id))
            .succeeded(self._on_read)
            .failed(lambda _: None)
            .finished(self._on_read_done)
            .start()
        )

    def fetch(self, what: str) -> Task | None:
        """Bring ``checkpoints`` or ``artifacts`` here; returns the task, None while one is under way."""
        if self._run_id is None or self.fetching is not None:
            return None
        workspace, run_id = self._services.workspace, self._run_id
        task = Task(f"Fetching the {what}", lambda watcher: workspace.fetch(run_id, what, watcher), self)
        task.ended.connect(self._on_fetch_ended)
        task.succeeded.connect(lambda _: self._services.note_runs_changed())
        self.fetching = task
        task.start()
        self.fetch_started.emit(task)
        return task

    def _on_tick(self) -> None:
        self._tick += 1
        if not self._is_over or self._tick % EVENTS_EVERY == 0:
            self.refresh()
        if self._tick % EVENTS_EVERY == 1:
            self._read_events()

    def _read_events(self) -> None:
        placement = self.snapshot.placement if self.snapshot is not None else None
        if placement is None or placement.engine != "kubernetes" or self._run_id is None or self._events is not None:
            return
        workspace, run_id = self._services.workspace, self._run_id
        self._events = (
            Op(lambda: _events(workspace, run_id))
            .succeeded(self.events_loaded.emit)
            .failed(self.events_failed.emit)
            .finished(self._on_events_done)
            .start(may_wait=True)
        )

    def _on_read(self, snapshot: NodesSnapshot) -> None:
        self.snapshot = snapshot
        self.loaded.emit(snapshot)

    def _on_read_done(self) -> None:
        self._reading = None

    def _on_events_done(self) -> None:
        self._events = None

    def _on_fetch_ended(self) -> None:
        if self.fetching is not None:
            self.fetching.deleteLater()
        self.fetching = None


def _read(workspace: Workspace, run_id: RunId) -> NodesSnapshot:
    from core.runlog.placements import read_placement

    return NodesSnapshot(nodes=workspace.nodes(run_id), placement=read_placement(_run_dir(workspace, run_id)))


def _events(workspace: Workspace, run_id: RunId) -> tuple[ClusterLine, ...]:
    from core.fleet.kubernetes import KubernetesCluster
    from core.runlog.layout import RunLayout

    spec = workspace.read_spec(RunLayout(_run_dir(workspace, run_id)).spec)
    found = KubernetesCluster.of(spec.launch.kubernetes).events(run_id)
    return tuple(
        ClusterLine(
            ts=event.ts,
            about=event.about,
            text=f"{event.reason}: {event.message}" + (f" ({event.count} times)" if event.count > 1 else ""),
            is_warning=event.is_warning,
        )
        for event in found
    )


def _run_dir(workspace: Workspace, run_id: RunId) -> Path:
    return workspace.home.run_dir(run_id)
