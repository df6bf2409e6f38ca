"""Home: what runs now, what needs the user, this computer, what ran lately; and the quick start on an empty history."""

from __future__ import annotations

from typing import ClassVar

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.home_controller import HomeController, HomeSnapshot
from app.controllers.routes import HOSTS, RUNS, TRAIN, Route, Router
from app.controllers.telemetry_controller import TelemetryController
from app.viewmodels.reading_history import TelemetrySample
from app.viewmodels.wording import moment_text
from app.views.icons import icon
from app.views.page import Page
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.card_grid import CardGrid
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.fleet_card import FleetCard
from app.views.widgets.host_card import HostCard
from app.views.widgets.quick_start import QuickStartHero
from app.views.widgets.run_cards import LiveRunCard, RunRow
from core.contracts.ids import RunId
from core.contracts.notices import Notice
from core.contracts.runs import RunSummary

_WIDE = 900


class HomePage(Page):
    """The first page."""

    title: ClassVar[str] = "Home"
    icon_name: ClassVar[str] = "home"

    def __init__(
        self,
        controller: HomeController,
        telemetry: TelemetryController,
        fleet: FleetController,
        router: Router,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent, scrolls=True)
        self._controller = controller
        self._telemetry = telemetry
        self._fleet = fleet
        self._router = router
        self._cards: dict[RunId, LiveRunCard] = {}
        self._told: dict[bool, tuple[tuple[RunSummary, str], ...]] = {}
        self._build_actions()
        self._build_body()
        controller.loaded.connect(self.show_snapshot)
        controller.load_failed.connect(self._on_load_failed)
        controller.run_updated.connect(self._on_run_updated)
        telemetry.sampled.connect(self._on_sampled)

    def activate(self) -> None:
        """Read now and while the page is seen."""
        self._controller.activate()
        self._hosts.activate()
        if self._telemetry.history.last is not None:
            self._host.show_sample(self._telemetry.history.last)

    def deactivate(self) -> None:
        """Stop reading."""
        self._controller.deactivate()
        self._hosts.deactivate()

    def show_snapshot(self, snapshot: HomeSnapshot) -> None:
        """Show what was read."""
        self._error.hide()
        self._hero.setVisible(snapshot.total == 0)
        self._show_live(snapshot)
        self._show_rows(self._attention_rows, snapshot, snapshot.attention, explains=True)
        self._attention.setVisible(bool(snapshot.attention))
        self._show_rows(self._recent_rows, snapshot, snapshot.recent, explains=False)
        self._recent_empty.setVisible(not snapshot.recent)
        self._all_runs.setVisible(bool(snapshot.recent))
        self._columns_box.setVisible(True)
        self.set_heading(self.title, _sentence(snapshot))

    def _build_actions(self) -> None:
        for words, icon_name, kind in (("Benchmark", "benchmark", "benchmark"), ("Compress", "compress", "compress")):
            button = QPushButton(words)
            button.setIcon(icon(icon_name))
            button.setObjectName(f"home_{kind}")
            button.clicked.connect(lambda _checked=False, wanted=kind: self._router.go(Route(page=TRAIN, group=wanted)))
            self.add_action(button)
        new = QPushButton("New training")
        new.setIcon(icon("plus", "on_accent"))
        new.setObjectName("home_new_training")
        set_role(new, "primary")
        new.clicked.connect(lambda: self._router.go(Route(page=TRAIN, group="train")))
        self.add_action(new)

    def _build_body(self) -> None:
        self.body.setSpacing(SPACE.l)
        self._error = EmptyState("error", "", "", "Try again")
        self._error.triggered.connect(self._controller.refresh)
        self._error.hide()
        self.body.addWidget(self._error)
        self._hero = QuickStartHero()
        self._hero.start_wanted.connect(self._controller.start_quick_start)
        self._hero.hide()
        self.body.addWidget(self._hero)
        self._live_section, live = _section("Running now")
        self._live_grid = CardGrid(min_width=330, max_columns=4)
        live.addWidget(self._live_grid)
        self._live_more = QPushButton()
        set_role(self._live_more, "ghost")
        self._live_more.clicked.connect(lambda: self._router.go(Route(page=RUNS)))
        live.addWidget(self._live_more, 0, Qt.AlignmentFlag.AlignLeft)
        self.body.addWidget(self._live_section)
        self._attention = Card("Needs your attention")
        self._attention_rows = self._attention.body
        self.body.addWidget(self._attention)
        self._live_section.hide()
        self._attention.hide()
        self._build_columns()
        self.body.addStretch(1)

    def _build_columns(self) -> None:
        self._columns_box = QWidget()
        self._columns = QBoxLayout(QBoxLayout.Direction.LeftToRight, self._columns_box)
        self._columns.setContentsMargins(0, 0, 0, 0)
        self._columns.setSpacing(SPACE.m)
        recent = Card("Recent runs")
        self._all_runs = QPushButton("All runs")
        set_role(self._all_runs, "ghost")
        self._all_runs.setProperty("compact", True)
        self._all_runs.clicked.connect(lambda: self._router.go(Route(page=RUNS)))
        recent.title_row.addWidget(self._all_runs)
        self._recent_rows = QVBoxLayout()
        self._recent_rows.setSpacing(0)
        self._recent_empty = EmptyState(
            "runs", "No run has ended yet", "Runs that finish show up here with their result."
        )
        recent.body.addLayout(self._recent_rows)
        recent.body.addWidget(self._recent_empty)
        recent.body.addStretch(1)
        self._host = HostCard()
        self._host.details_wanted.connect(lambda: self._router.go(Route(page=HOSTS)))
        self._columns.addWidget(recent, 2)
        self._hosts = FleetCard(self._fleet)
        self._hosts.host_wanted.connect(lambda name: self._router.go(Route(page=HOSTS, text=name or None)))
        side = QVBoxLayout()
        side.setSpacing(SPACE.m)
        side.addWidget(self._hosts)
        side.addWidget(self._host, 1)
        self._columns.addLayout(side, 1)
        self._columns_box.hide()
        self.body.addWidget(self._columns_box)

    def _show_live(self, snapshot: HomeSnapshot) -> None:
        cards: list[LiveRunCard] = []
        for summary in snapshot.live:
            card = self._cards.get(summary.run_id) or self._new_card(summary, snapshot.kind_title(summary.kind))
            card.show_summary(summary)
            spark = snapshot.sparks.get(summary.run_id)
            if spark is not None:
                card.show_spark(spark.key, spark.values)
            cards.append(card)
        self._cards = {card.run_id: card for card in cards}
        self._live_grid.set_cards(cards)
        self._live_section.setVisible(bool(cards))
        beyond = snapshot.live_total - len(cards)
        self._live_more.setText(f"{beyond} more")
        self._live_more.setVisible(beyond > 0)

    def _new_card(self, summary: RunSummary, kind_title: str) -> LiveRunCard:
        card = LiveRunCard(summary, kind_title)
        card.opened.connect(lambda run_id: self._router.open_run(RunId(run_id)))
        card.stop_wanted.connect(lambda run_id: self._controller.stop(RunId(run_id)))
        return card

    def _show_rows(
        self, rows: QVBoxLayout, snapshot: HomeSnapshot, summaries: tuple[RunSummary, ...], *, explains: bool
    ) -> None:
        told = tuple((summary, moment_text(summary.ended or summary.created)) for summary in summaries)
        if self._told.get(explains) == told:
            # Rows are made anew only when they would say something else, so that the focus stays where it is.
            return
        self._told[explains] = told
        _clear(rows)
        for index, summary in enumerate(summaries):
            if index:
                rows.addWidget(_separator())
            row = RunRow(summary, snapshot.kind_title(summary.kind), explains=explains)
            row.opened.connect(lambda run_id: self._router.open_run(RunId(run_id)))
            row.resume_wanted.connect(lambda run_id: self._controller.resume(RunId(run_id)))
            rows.addWidget(row)

    def _on_run_updated(self, summary: RunSummary) -> None:
        card = self._cards.get(summary.run_id)
        if card is not None:
            card.show_summary(summary)

    def _on_sampled(self, sample: TelemetrySample) -> None:
        if self.isVisible():
            self._host.show_sample(sample)

    def _on_load_failed(self, notice: Notice) -> None:
        self._error.set_content("error", notice.message, notice.hint, "Try again")
        self._error.show()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Put the columns above each other on a narrow window."""
        wide = self.width() >= _WIDE
        self._columns.setDirection(QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom)
        super().resizeEvent(event)


def _section(heading: str) -> tuple[QWidget, QVBoxLayout]:
    box = QWidget()
    layout = QVBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACE.s)
    row = QHBoxLayout()
    label = QLabel(heading)
    set_kind(label, "h2")
    row.addWidget(label)
    layout.addLayout(row)
    return box, layout


def _separator() -> QFrame:
    line = QFrame()
    line.setProperty("separator", True)
    line.setFixedHeight(1)
    return line


def _clear(layout: QVBoxLayout) -> None:
    while (item := layout.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()


def _sentence(snapshot: HomeSnapshot) -> str:
    if snapshot.total == 0:
        return "Train, compress and measure models on this computer; everything you run is kept here."
    parts = [f"{snapshot.live_total} running" if snapshot.live_total else "Nothing is running"]
    if snapshot.attention:
        parts.append(f"{len(snapshot.attention)} {'need' if len(snapshot.attention) > 1 else 'needs'} your attention")
    parts.append(f"{snapshot.total:,} run{'s' if snapshot.total > 1 else ''} in the history".replace(",", "\u202f"))
    return " · ".join(parts)
