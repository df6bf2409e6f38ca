"""The nodes tab of a run: each node with state, host and last contact, each rank with step and lag, cluster and fetching.

Widgets: ``nodes_table``, ``ranks_table``, ``straggler``, ``fetch_checkpoints``, ``fetch_artifacts``, ``cluster_events``.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.controllers.nodes_controller import ClusterLine, NodesSnapshot
from app.controllers.tasks import Task
from app.viewmodels.host_wording import clock_text
from app.viewmodels.node_table import NodeRow, RankRow, node_rows, nodes_sentence, rank_rows
from app.views.icons import icon, icon_pixmap
from app.views.page import scroll_area
from app.views.theme import SPACE, set_kind, state_colour, state_icon, theme, theme_host
from app.views.widgets.card import Card
from app.views.widgets.task_panel import TaskPanel
from core.contracts.notices import Notice

_NODE_TITLES = ("Node", "Host", "State", "Contact", "Devices", "Ranks", "Processes after the end", "Note")
_RANK_TITLES = ("Rank", "Node", "Step", "Last event", "Lag")
_ROW = 34
_MAX_ROWS = 10
_MAX_EVENTS = 200
_ENGINES = {"slurm": "Slurm job", "kubernetes": "Kubernetes object"}


class NodeBoard(QWidget):
    """Shows how a run is spread.

    Signals:
        fetch_wanted: ``checkpoints`` or ``artifacts`` (str).
        node_log_wanted: Name of a node whose output to see (str).
    """

    fetch_wanted = Signal(str)
    node_log_wanted = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._snapshot: NodesSnapshot | None = None
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, SPACE.s, 0, 0)
        body = QVBoxLayout()
        body.setSpacing(SPACE.m)
        body.addWidget(self._build_nodes())
        body.addWidget(self._build_fetch())
        body.addWidget(self._build_ranks())
        body.addWidget(self._build_events())
        body.addStretch(1)
        outer.addWidget(scroll_area(body, SPACE.s), 1)
        theme_host().changed.connect(self._on_theme)

    def show_snapshot(self, snapshot: NodesSnapshot) -> None:
        """Show how the run stands; the place and the selection stay."""
        self._snapshot = snapshot
        nodes = snapshot.nodes
        self._summary.setText(nodes_sentence(nodes))
        self._show_job(snapshot)
        self._straggler.setText(nodes.straggler)
        self._straggler_row.setVisible(bool(nodes.straggler))
        self._fill_nodes(node_rows(nodes))
        ranks = rank_rows(nodes)
        self._ranks_card.setVisible(bool(ranks))
        self._fill_ranks(ranks)
        self._fetch.setVisible(snapshot.is_elsewhere)

    def show_events(self, lines: Sequence[ClusterLine]) -> None:
        """Show what the cluster says about the run, the newest first."""
        newest = list(reversed(lines))[:_MAX_EVENTS]
        self._events_card.show()
        self._events_words.setVisible(not newest)
        self._events_words.setText("The cluster says nothing about it; it forgets within about an hour.")
        self.events.setVisible(bool(newest))
        self.events.setRowCount(len(newest))
        for row, line in enumerate(newest):
            colour = theme().warning if line.is_warning else ""
            for column, text in enumerate((clock_text(line.ts), line.about, line.text)):
                _put(self.events, row, column, text, colour if column == 2 else "")
        _fit(self.events, len(newest))

    def show_events_problem(self, notice: Notice) -> None:
        """Say why the cluster could not be asked."""
        self._events_card.show()
        self._events_words.setText(f"{notice.message} {notice.hint}".strip())
        self._events_words.show()

    def show_fetch(self, task: Task) -> None:
        """Show files on their way here."""
        self.panel.follow(task)
        self._show_fetch_buttons(enabled=False)
        task.ended.connect(self._on_fetch_ended)

    def clear(self) -> None:
        """Show nothing of any run."""
        self._snapshot = None
        self.panel.follow(None)
        self._events_card.hide()
        self.table.setRowCount(0)
        self.ranks.setRowCount(0)

    # -- building --------------------------------------------------------------------------------------------------

    def _build_nodes(self) -> Card:
        card = Card("Nodes")
        self._summary = QLabel()
        self._summary.setObjectName("nodes_summary")
        set_kind(self._summary, "caption")
        card.title_row.addWidget(self._summary)
        self._job = QLabel()
        self._job.setObjectName("job_words")
        self._job.setWordWrap(True)
        self._job.setTextFormat(Qt.TextFormat.PlainText)
        self._job.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        set_kind(self._job, "muted")
        card.body.addWidget(self._job)
        self._straggler_row = QWidget()
        row = QHBoxLayout(self._straggler_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACE.s)
        self._straggler_icon = QLabel()
        self._straggler = QLabel()
        self._straggler.setObjectName("straggler")
        self._straggler.setWordWrap(True)
        row.addWidget(self._straggler_icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self._straggler, 1)
        self._straggler_row.hide()
        card.body.addWidget(self._straggler_row)
        self.table = _table("nodes_table", "Nodes of the run", _NODE_TITLES)
        self.table.itemActivated.connect(lambda item: self._on_node(item.row()))
        self.table.setToolTip("Enter or double click: the node's own log")
        card.body.addWidget(self.table)
        self._on_theme()
        return card

    def _build_fetch(self) -> Card:
        self._fetch = Card("On the hosts")
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        words = QLabel("Checkpoints and artifacts stay where they were made until you fetch them.")
        words.setWordWrap(True)
        set_kind(words, "muted")
        row.addWidget(words, 1)
        self._fetch_buttons: list[QPushButton] = []
        for what in ("checkpoints", "artifacts"):
            button = QPushButton(f"Fetch {what}")
            button.setObjectName(f"fetch_{what}")
            button.setIcon(icon("import"))
            button.clicked.connect(lambda _=False, what=what: self.fetch_wanted.emit(what))
            self._fetch_buttons.append(button)
            row.addWidget(button)
        self._fetch.body.addLayout(row)
        self.panel = TaskPanel(has_log=False)
        self._fetch.body.addWidget(self.panel)
        self._fetch.hide()
        return self._fetch

    def _build_ranks(self) -> Card:
        self._ranks_card = Card("Ranks")
        self.ranks = _table("ranks_table", "Ranks of the run", _RANK_TITLES)
        self._ranks_card.body.addWidget(self.ranks)
        self._ranks_card.hide()
        return self._ranks_card

    def _build_events(self) -> Card:
        self._events_card = Card("Events of the cluster")
        self._events_words = QLabel()
        self._events_words.setWordWrap(True)
        self._events_words.setTextFormat(Qt.TextFormat.PlainText)
        set_kind(self._events_words, "muted")
        self._events_card.body.addWidget(self._events_words)
        self.events = _table("cluster_events", "Events of the cluster", ("When", "About", "What"))
        self._events_card.body.addWidget(self.events)
        self._events_card.hide()
        return self._events_card

    # -- showing ---------------------------------------------------------------------------------------------------

    def _show_job(self, snapshot: NodesSnapshot) -> None:
        placed = snapshot.placement
        text = ""
        if placed is not None and placed.engine in _ENGINES:
            text = f"{_ENGINES[placed.engine]} {placed.job_id}" if placed.job_id else "Not submitted yet"
        elif placed is not None and placed.is_elastic:
            text = f"Elastic: goes on with {placed.min_nodes} of {len(placed.nodes)} nodes."
        self._job.setText(text)
        self._job.setVisible(bool(text))

    def _fill_nodes(self, rows: tuple[NodeRow, ...]) -> None:
        self.table.setRowCount(len(rows))
        tokens = theme()
        for n, row in enumerate(rows):
            texts = (
                row.node,
                row.host,
                row.state_text,
                row.contact,
                row.devices,
                row.ranks,
                row.processes,
                row.message,
            )
            for column, text in enumerate(texts):
                colour = tokens.warning if row.is_silent and column == 3 else ""
                item = _put(self.table, n, column, text, colour)
                if column == 2 and row.state is not None:
                    item.setIcon(icon(state_icon(row.state), state_colour(row.state)))
        has_processes = any(row.processes for row in rows)
        self.table.setColumnHidden(6, not has_processes)
        self.table.setColumnHidden(7, not any(row.message for row in rows))
        self.table.setColumnHidden(5, not any(row.ranks for row in rows))
        _fit(self.table, len(rows))

    def _fill_ranks(self, rows: tuple[RankRow, ...]) -> None:
        self.ranks.setRowCount(len(rows))
        worst = max((row.behind for row in rows if row.behind is not None), default=0)
        for n, row in enumerate(rows):
            is_last = worst > 1 and row.behind == worst
            for column, text in enumerate((str(row.rank), row.node, row.step, row.last_event, row.lag)):
                _put(self.ranks, n, column, text, theme().warning if is_last and column == 2 else "")
        self.ranks.setColumnHidden(4, not any(row.lag for row in rows))
        _fit(self.ranks, len(rows))

    def _show_fetch_buttons(self, *, enabled: bool) -> None:
        for button in self._fetch_buttons:
            button.setEnabled(enabled)

    def _on_fetch_ended(self) -> None:
        self._show_fetch_buttons(enabled=True)

    def _on_node(self, row: int) -> None:
        if self._snapshot is not None and row < len(self._snapshot.nodes.nodes):
            self.node_log_wanted.emit(self._snapshot.nodes.nodes[row].node)

    def _on_theme(self) -> None:
        self._straggler_icon.setPixmap(icon_pixmap("warning", 18, "warning", self.devicePixelRatioF()))
        if self._snapshot is not None:
            self.show_snapshot(self._snapshot)


def _table(name: str, words: str, titles: tuple[str, ...]) -> QTableWidget:
    table = QTableWidget(0, len(titles))
    table.setObjectName(name)
    table.setAccessibleName(words)
    table.setHorizontalHeaderLabels(titles)
    header = table.horizontalHeader()
    header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setStretchLastSection(True)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(_ROW)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    return table


def _put(table: QTableWidget, row: int, column: int, text: str, colour: str = "") -> QTableWidgetItem:
    item = table.item(row, column)
    if item is None:
        item = QTableWidgetItem()
        table.setItem(row, column, item)
    if item.text() != text:
        item.setText(text)
        item.setToolTip(text)
    item.setForeground(QColor(colour or theme().text))
    return item


def _fit(table: QTableWidget, rows: int) -> None:
    """Show up to ten rows without scrolling."""
    bar = table.horizontalScrollBar().sizeHint().height()
    height = min(max(rows, 1), _MAX_ROWS) * _ROW + table.horizontalHeader().sizeHint().height() + bar
    if table.height() != height:
        table.setFixedHeight(height)
