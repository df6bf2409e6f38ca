"""A host at a glance: what it is made of, what is wrong with it and how to put it right, its GPUs, and live charts."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app.viewmodels.device_table import DeviceTable
from app.viewmodels.hardware_facts import Fact, hardware_facts
from app.viewmodels.host_readings import core_percents
from app.viewmodels.reading_history import ReadingHistory
from app.views.page import scroll_area
from app.views.theme import SPACE, set_kind
from app.views.widgets.card import Card
from app.views.widgets.card_grid import CardGrid
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.heat_map import HeatMap
from app.views.widgets.live_plot import LivePlot, plans_of
from app.views.widgets.sentence_row import sentence_row
from core.contracts.notices import Notice, Severity
from core.contracts.telemetry import HardwareProblem, HardwareReport

_LOOKS = {
    Severity.INFO: ("info", "info"),
    Severity.SUCCESS: ("success", "success"),
    Severity.WARNING: ("warning", "warning"),
    Severity.ERROR: ("error", "danger"),
}


class OverviewTab(QWidget):
    """Shows one host at a time. ``state`` stands in for what is not known yet; its button asks to try again."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.plots: list[LivePlot] = []
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self.body = QVBoxLayout()
        self.body.setSpacing(SPACE.m)
        outer.addWidget(scroll_area(self.body, SPACE.s), 1)
        self.state = EmptyState("hosts", "", "")
        self.body.addWidget(self.state)
        self._build_hardware()
        self._build_gpus()
        self._age = QLabel()
        self._age.setObjectName("readings_age")
        set_kind(self._age, "caption")
        self.body.addWidget(self._age)
        self._charts = CardGrid(min_width=300, max_columns=3)
        self.body.addWidget(self._charts)
        self.body.addStretch(1)
        self.clear()

    def clear(self) -> None:
        """Show nothing of any host."""
        self.state.hide()
        self._hardware.hide()
        self._cores_card.hide()
        self._problem_card.hide()
        self.gpu_card.hide()
        self._age.hide()
        self.plots = []
        self._charts.set_cards(())
        self._devices.set_report(None)

    def show_state(self, icon_name: str, heading: str, sentence: str, button: str = "") -> None:
        """Say why there is nothing to see."""
        self.state.set_content(icon_name, heading, sentence, button)
        self.state.show()

    def show_problem(self, notice: Notice) -> None:
        """Say why the hardware could not be looked at."""
        self.show_state("error", notice.message, notice.hint, "Try again")

    def show_report(self, report: HardwareReport) -> None:
        """Show what the host is made of."""
        self.state.hide()
        self._hardware.show()
        self._show_facts(hardware_facts(report))
        self._show_problems(report.problems)
        self._devices.set_report(report)
        self.gpu_card.setVisible(bool(report.gpus))
        bar = self._gpu_table.horizontalScrollBar().sizeHint().height()
        self._gpu_table.setFixedHeight(36 + 40 * max(len(report.gpus), 1) + 4 + bar)

    def show_history(self, history: ReadingHistory, age: str = "") -> None:
        """Show readings; ``age`` says how old the newest is, empty where that goes without saying."""
        sample = history.last
        if sample is None:
            return
        percents = core_percents(sample)
        self._cores.set_percents(percents)
        self._cores_card.setVisible(bool(percents))
        self._devices.set_sample(sample)
        self.show_age(age)
        plans = plans_of(history.keys())
        if plans != tuple(plot.plan for plot in self.plots):
            self.plots = [LivePlot(plan) for plan in plans]
            self._charts.set_cards(self.plots)
        for plot in self.plots:
            plot.show_history(history)

    def show_age(self, age: str) -> None:
        """Show how old the readings are."""
        self._age.setText(age)
        self._age.setVisible(bool(age))

    def _build_hardware(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(SPACE.m)
        self._hardware = Card("Hardware")
        self.facts = QGridLayout()
        self.facts.setHorizontalSpacing(SPACE.l)
        self.facts.setVerticalSpacing(SPACE.s)
        self.facts.setColumnStretch(1, 1)
        self._hardware.body.addLayout(self.facts)
        self._hardware.body.addStretch(1)
        side = QVBoxLayout()
        side.setSpacing(SPACE.m)
        self._cores_card = Card("Cores, busy now")
        self._cores = HeatMap("Core")
        self._cores_card.body.addWidget(self._cores)
        self._problem_card = Card("What to know")
        side.addWidget(self._cores_card)
        side.addWidget(self._problem_card)
        side.addStretch(1)
        top.addWidget(self._hardware, 3)
        top.addLayout(side, 2)
        self.body.addLayout(top)

    def _build_gpus(self) -> None:
        self._devices = DeviceTable(self)
        self.gpu_card = Card("GPUs")
        table = QTableView()
        table.setModel(self._devices)
        table.setObjectName("gpu_table")
        table.setAccessibleName("GPUs of this host")
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(40)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._gpu_table = table
        self.gpu_card.body.addWidget(table)
        self.body.addWidget(self.gpu_card)

    def _show_facts(self, facts: tuple[Fact, ...]) -> None:
        _clear(self.facts)
        for row, fact in enumerate(facts):
            name, value = QLabel(fact.name), QLabel(fact.value)
            set_kind(name, "muted")
            value.setWordWrap(True)
            value.setTextFormat(Qt.TextFormat.PlainText)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self.facts.addWidget(name, row, 0, Qt.AlignmentFlag.AlignTop)
            self.facts.addWidget(value, row, 1)

    def _show_problems(self, problems: tuple[HardwareProblem, ...]) -> None:
        _clear(self._problem_card.body)
        self._problem_card.setVisible(bool(problems))
        for problem in problems:
            self._problem_card.body.addWidget(_problem_row(problem, self.devicePixelRatioF()))


def _problem_row(problem: HardwareProblem, ratio: float) -> QWidget:
    icon_name, colour = _LOOKS[problem.severity]
    return sentence_row(icon_name, colour, problem.message, problem.hint, ratio)


def _clear(layout: QGridLayout | QVBoxLayout) -> None:
    while (item := layout.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
