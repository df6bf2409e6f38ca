"""A run's page: head with state and remedy, and tabs for overview, curves, stability, profile, nodes, log, spec, artifacts.

Opened by id from anywhere; follows the run while it is seen. Its tabs are called ``run_tabs``, its buttons ``run_pause``,
``run_proceed``, ``run_stop``, ``run_resume``, ``run_again`` (on other hosts), ``run_clone``, ``run_more``.
"""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QLabel, QMenu, QPushButton, QStackedWidget, QTabWidget, QVBoxLayout, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.nodes_controller import NodesController, NodesSnapshot
from app.controllers.ops import Op
from app.controllers.profile_controller import ProfileController
from app.controllers.routes import RUNS, TRAIN, Route
from app.controllers.run_actions import DeletedRuns, RunActions, can_pause, can_proceed, can_resume, can_stop
from app.controllers.run_controller import RunController
from app.controllers.services import Services
from app.controllers.sweep_controller import SweepController
from app.viewmodels.curve_set import ChartPlan
from app.viewmodels.metric_series import ViewRange
from app.viewmodels.node_table import is_spread
from app.viewmodels.plot_options import PlotOptions
from app.viewmodels.profile_table import can_profile
from app.views.dialogs.retry_dialog import RetryDialog
from app.views.icons import icon
from app.views.page import Page
from app.views.theme import mono_font, set_kind
from app.views.widgets.artifact_list import ArtifactList
from app.views.widgets.curve_board import CurveBoard
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.log_view import LogView
from app.views.widgets.node_board import NodeBoard
from app.views.widgets.profile_board import ProfileBoard
from app.views.widgets.run_header import RunHeader
from app.views.widgets.run_menu import RunCommands, fill_run_menu
from app.views.widgets.run_overview import RunOverview
from app.views.widgets.stability_board import StabilityBoard
from app.views.widgets.sweep_board import SweepBoard
from app.views.widgets.toml_view import TomlView
from app.views.widgets.undo_bar import UndoBar
from core.contracts.forms import RunKindInfo
from core.contracts.notices import Notice
from core.contracts.profiles import SUMMARY_KIND
from core.contracts.runs import CheckpointRecord, MarkerRecord, RunDetail, RunSummary
from core.contracts.sweeps import SWEEP_KIND

_TICK_MS = 1000
_MAX_NAME = 60


class RunDetailPage(Page):
    """One run. Thread: UI."""

    title = "Run"
    icon_name = "runs"

    def __init__(self, services: Services, fleet: FleetController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self._fleet = fleet
        self.controller = RunController(services, self)
        self.nodes = NodesController(services, self)
        self.sweeps = SweepController(services, self)
        self.profiles = ProfileController(services, self)
        self._actions = RunActions(services, self)
        self._commands = RunCommands(self, self._actions, services.router)
        self._kinds: dict[str, str] = {}
        self._build()
        self._connect()
        self._tick = QTimer(self, interval=_TICK_MS)
        self._tick.timeout.connect(self._show_head)
        Op(services.workspace.kinds).succeeded(self._on_kinds).start()

    def activate(self) -> None:
        """Follow the run again."""
        self._tick.start()
        self.nodes.resume()
        self.sweeps.resume()
        if self.controller.run_id is not None:
            self.controller.refresh()

    def deactivate(self) -> None:
        """Stop ticking; the run is still watched, so that nothing is missed."""
        self._tick.stop()
        self.nodes.pause()
        self.sweeps.pause()

    def open(self, route: Route) -> None:
        """Open the run that the route names."""
        if route.run_id is None or route.run_id == self.controller.run_id:
            return
        self._stack.setCurrentIndex(0)
        self.set_heading(route.run_id[:_MAX_NAME])
        self.log.clear()
        self.board_of_nodes.clear()
        self.sweeps.close()
        self.sweep.clear()
        self.profile.clear()
        for tab in self._optional_tabs:
            self.tabs.setTabVisible(self.tabs.indexOf(tab), False)
        self.profiles.open(route.run_id)
        self.controller.open(route.run_id)
        self.nodes.open(route.run_id)

    def _build(self) -> None:
        self._buttons: dict[str, QPushButton] = {}
        for name, text, icon_name in (
            ("run_pause", "Pause", "pause"),
            ("run_proceed", "Continue", "play"),
            ("run_stop", "Stop", "stop"),
            ("run_resume", "Resume", "resume"),
            ("run_again", "Retry…", "hosts"),
            ("run_clone", "Clone", "clone"),
            ("run_more", "More", "more"),
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setIcon(icon(icon_name))
            self._buttons[name] = button
            self.add_action(button)
        self._more = QMenu(self)
        self._more.aboutToShow.connect(self._fill_menu)
        self._buttons["run_more"].setMenu(self._more)
        self._undo = UndoBar()
        self.body.addWidget(self._undo)
        self._stack = QStackedWidget()
        self._state = EmptyState("clock", "Reading the run…", "")
        self._state.triggered.connect(self._on_back)
        self._stack.addWidget(self._state)
        self._stack.addWidget(self._build_run())
        self.body.addWidget(self._stack, 1)

    def _build_run(self) -> QWidget:
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 0, 0, 0)
        self._head = RunHeader()
        column.addWidget(self._head)
        self.tabs = QTabWidget()
        self.tabs.setObjectName("run_tabs")
        self.tabs.setDocumentMode(True)
        self.overview = RunOverview()
        self.board = CurveBoard(PlotOptions(smoothing=self._services.settings.smoothing))
        self.stability = StabilityBoard()
        self.profile = ProfileBoard()
        self.board_of_nodes = NodeBoard()
        self.sweep = SweepBoard()
        self.log = LogView()
        self.artifacts = ArtifactList()
        self._spec_tab = self._build_spec()
        self._detail: RunDetail | None = None
        self._stale: set[QWidget] = set()
        for widget, title in (
            (self.overview, "Overview"),
            (self.sweep, "Sweep"),
            (self.board, "Curves"),
            (self.stability, "Stability"),
            (self.profile, "Profile"),
            (self.board_of_nodes, "Nodes"),
            (self.log, "Log"),
            (self._spec_tab, "Spec"),
            (self.artifacts, "Artifacts"),
        ):
            self.tabs.addTab(widget, title)
        self._optional_tabs = (self.sweep, self.board_of_nodes, self.stability, self.profile)
        for tab in self._optional_tabs:
            self.tabs.setTabVisible(self.tabs.indexOf(tab), False)
        self.tabs.currentChanged.connect(self._fill_tab)
        column.addWidget(self.tabs, 1)
        return holder

    def _build_spec(self) -> QWidget:
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 8, 0, 0)
        self.spec = TomlView()
        self._command = QLabel()
        self._command.setFont(mono_font(12))
        self._command.setTextFormat(Qt.TextFormat.PlainText)
        self._command.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        set_kind(self._command, "mono")
        column.addWidget(self.spec, 1)
        column.addWidget(self._command)
        return holder

    def _connect(self) -> None:
        controller = self.controller
        controller.detail_loaded.connect(self._on_detail)
        controller.summary_changed.connect(self._on_summary)
        controller.load_failed.connect(self._on_load_failed)
        controller.curves_opened.connect(self.board.set_curves)
        controller.curves_declared.connect(self.board.sync_charts)
        controller.curves_changed.connect(self.board.curves_changed)
        controller.log_reset.connect(self.log.reset)
        controller.log_appended.connect(self.log.append)
        controller.log_prepended.connect(self.log.prepend)
        self.log.earlier_wanted.connect(controller.load_log_before)
        self.board.details_wanted.connect(controller.load_details)
        self.board.csv_wanted.connect(self._on_csv_wanted)
        self.board.options_changed.connect(self._on_options_changed)
        self.overview.run_wanted.connect(self._services.router.open_run)
        self._head.log_wanted.connect(lambda: self.tabs.setCurrentWidget(self.log))
        self._head.clone_wanted.connect(self._on_clone)
        self._buttons["run_stop"].clicked.connect(lambda: self._commands.stop(self._runs()))
        self._buttons["run_resume"].clicked.connect(lambda: self._commands.resume(self._runs()))
        self._buttons["run_clone"].clicked.connect(self._on_clone)
        self._buttons["run_pause"].clicked.connect(lambda: self._commands.pause(self._runs()))
        self._buttons["run_proceed"].clicked.connect(lambda: self._commands.proceed(self._runs()))
        self._buttons["run_again"].clicked.connect(self._on_retry)
        self._connect_nodes()
        self._connect_sweep()
        self._connect_training()
        self._actions.deleted.connect(self._on_deleted)
        back = QShortcut(QKeySequence("Alt+Left"), self)
        back.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        back.activated.connect(self._on_back)

    def _connect_nodes(self) -> None:
        nodes = self.nodes
        nodes.loaded.connect(self._on_nodes)
        nodes.events_loaded.connect(self.board_of_nodes.show_events)
        nodes.events_failed.connect(self.board_of_nodes.show_events_problem)
        nodes.fetch_started.connect(self.board_of_nodes.show_fetch)
        self.board_of_nodes.fetch_wanted.connect(nodes.fetch)
        self.board_of_nodes.node_log_wanted.connect(self._on_node_log)
        self.log.node_wanted.connect(self.controller.show_log_of)

    def _connect_training(self) -> None:
        self.stability.marker_wanted.connect(self._on_marker_wanted)
        self.artifacts.start_wanted.connect(self._on_start_wanted)
        profiles = self.profiles
        profiles.loaded.connect(self.profile.show_report)
        profiles.failed.connect(self.profile.show_problem)
        profiles.waiting_changed.connect(lambda waiting: self.profile.show_waiting(waiting=waiting))
        self.profile.profile_wanted.connect(profiles.request)
        self.profile.copy_wanted.connect(lambda paths: profiles.save_trace(*paths))

    def _on_marker_wanted(self, marker: MarkerRecord) -> None:
        self.tabs.setCurrentWidget(self.board)
        self.board.show_marker(marker)

    def _on_start_wanted(self, checkpoint: CheckpointRecord) -> None:
        route = Route(page=TRAIN, run_id=checkpoint.run_id, start_from=checkpoint.path)
        self._services.router.go(route)

    def _connect_sweep(self) -> None:
        self.sweeps.loaded.connect(self.sweep.show_report)
        self.sweeps.failed.connect(self.sweep.show_problem)
        self.sweep.run_wanted.connect(self._services.router.open_run)
        self.sweep.again_wanted.connect(lambda run_id: self._services.router.go(Route(page=TRAIN, run_id=run_id)))

    def _on_nodes(self, snapshot: NodesSnapshot) -> None:
        shown = is_spread(snapshot.nodes)
        self.tabs.setTabVisible(self.tabs.indexOf(self.board_of_nodes), shown)
        sources = [
            (node.node, f"{node.node} · {node.host}" if node.host else node.node) for node in snapshot.nodes.nodes
        ]
        self.log.set_sources(sources, len(snapshot.nodes.ranks))
        if shown:
            self.board_of_nodes.show_snapshot(snapshot)
        self._show_head()

    def _on_node_log(self, node: str) -> None:
        self.tabs.setCurrentWidget(self.log)
        self.log.choose_node(node)

    def _on_retry(self) -> None:
        snapshot, run_id = self.nodes.snapshot, self.controller.run_id
        if snapshot is None or run_id is None:
            return
        dialog = RetryDialog(self._fleet, snapshot.nodes.nodes, self)
        dialog.accepted.connect(lambda: self._actions.retry(run_id, dialog.hosts))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def _runs(self) -> tuple[RunSummary, ...]:
        summary = self.controller.summary
        return () if summary is None else (summary,)

    def _fill_menu(self) -> None:
        runs = self._runs()
        if runs:
            fill_run_menu(self._more, self._commands, runs, in_table=False)

    def _show_head(self) -> None:
        summary = self.controller.summary
        if summary is None:
            return
        name = " ".join((summary.name or summary.run_id).split())
        self.set_heading(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…", summary.run_id)
        self.setToolTip(name if len(name) > _MAX_NAME else "")
        self._head.show_summary(summary, self._kinds.get(summary.kind, summary.kind))
        self._buttons["run_stop"].setVisible(can_stop(summary))
        self._buttons["run_resume"].setVisible(can_resume(summary))
        self._buttons["run_pause"].setVisible(can_pause(summary))
        self._buttons["run_proceed"].setVisible(can_proceed(summary))
        snapshot = self.nodes.snapshot
        elsewhere = snapshot is not None and snapshot.is_elsewhere
        self._buttons["run_again"].setVisible(elsewhere and can_resume(summary))

    def _on_kinds(self, kinds: tuple[RunKindInfo, ...]) -> None:
        self._kinds = {info.kind: info.title for info in kinds}
        self._show_head()

    def _on_detail(self, detail: RunDetail) -> None:
        self._show_head()
        self.nodes.on_summary(detail.summary)
        self.sweeps.on_summary(detail.summary)
        self._detail = detail
        self._stale = {self.overview, self.artifacts, self._spec_tab, self.stability}
        self.tabs.setTabVisible(self.tabs.indexOf(self.stability), self.stability.concerns(detail))
        has_profile = can_profile(detail.spec_toml) or any(item.kind == SUMMARY_KIND for item in detail.artifacts)
        self.tabs.setTabVisible(self.tabs.indexOf(self.profile), has_profile)
        if has_profile:
            self.profile.show_summary(detail.summary)
            self.profiles.on_detail(detail)
        self.board.set_markers(detail.markers)
        if self._stack.currentIndex() == 0:
            self._stack.setCurrentIndex(1)
            self._show_first_tab(detail.summary)
        self._fill_tab()

    def _show_first_tab(self, summary: RunSummary) -> None:
        """Begin with what tells most of this run."""
        is_sweep = summary.kind == SWEEP_KIND
        self.tabs.setTabVisible(self.tabs.indexOf(self.sweep), is_sweep)
        first = self.overview if summary.state.is_terminal else self.board
        self.tabs.setCurrentWidget(self.sweep if is_sweep else first)

    def _fill_tab(self) -> None:
        """Bring the tab in view up to date; those out of view wait until they are looked at."""
        tab = self.tabs.currentWidget()
        detail = self._detail
        if detail is None or tab not in self._stale:
            return
        self._stale.discard(tab)
        if tab is self.overview:
            self.overview.show_detail(detail)
        elif tab is self.artifacts:
            self.artifacts.show_detail(detail)
        elif tab is self.stability:
            self.stability.show_detail(detail)
        else:
            self.spec.set_text(detail.spec_toml)
            spec_path = Path(detail.summary.run_dir) / "spec.toml"
            self._command.setText(f'The same on the command line:  pilothouse run "{spec_path}" --follow')

    def _on_summary(self, summary: RunSummary) -> None:
        self._show_head()
        self.nodes.on_summary(summary)
        self.profile.show_summary(summary)
        if self.overview not in self._stale:
            self.overview.show_summary(summary)

    def _on_load_failed(self, notice: Notice) -> None:
        self._state.set_content("error", notice.message, notice.hint, "Go to all runs")
        self._stack.setCurrentIndex(0)

    def _on_clone(self) -> None:
        for summary in self._runs():
            self._commands.clone(summary)

    def _on_back(self) -> None:
        self._services.router.go(Route(page=RUNS))

    def _on_csv_wanted(self, wanted: tuple[ChartPlan, ViewRange, tuple[str, ...], Path]) -> None:
        self.controller.export_values(*wanted)

    def _on_options_changed(self, options: PlotOptions) -> None:
        if options.smoothing != self._services.settings.smoothing:
            self._services.change_settings(smoothing=options.smoothing)

    def _on_deleted(self, gone: DeletedRuns) -> None:
        if self.controller.run_id in gone.run_ids:
            self.controller.close()
            self.nodes.close()
            self.sweeps.close()
            self._state.set_content(
                "trash", "The run is in the bin", "Its files can still be brought back.", "Go to all runs"
            )
            self._stack.setCurrentIndex(0)
            self._undo.offer("Moved to the bin.", lambda: self._on_undo(gone))

    def _on_undo(self, gone: DeletedRuns) -> None:
        self._actions.restored.connect(self._on_restored, Qt.ConnectionType.SingleShotConnection)
        self._actions.restore(gone.run_ids)

    def _on_restored(self, back: DeletedRuns) -> None:
        self.open(Route(page="run", run_id=back.run_ids[0]))
