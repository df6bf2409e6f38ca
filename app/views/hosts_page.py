"""Hosts: what this computer is made of, what is wrong with it and how to put it right, its GPUs, and live charts."""

from __future__ import annotations

from typing import ClassVar

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app.controllers.telemetry_controller import TelemetryController
from app.viewmodels.device_table import DeviceTable
from app.viewmodels.hardware_facts import Fact, hardware_facts
from app.viewmodels.host_readings import core_percents
from app.viewmodels.reading_history import TelemetrySample
from app.views.icons import icon, icon_pixmap
from app.views.page import Page
from app.views.theme import SPACE, set_kind
from app.views.widgets.card import Card
from app.views.widgets.card_grid import CardGrid
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.heat_map import HeatMap
from app.views.widgets.live_plot import LivePlot, plans_of
from core.contracts.notices import Notice, Severity
from core.contracts.telemetry import HardwareProblem, HardwareReport

_LOOKS = {
    Severity.INFO: ("info", "info"),
    Severity.SUCCESS: ("success", "success"),
    Severity.WARNING: ("warning", "warning"),
    Severity.ERROR: ("error", "danger"),
}


class HostsPage(Page):
    """This computer."""

    title: ClassVar[str] = "Hosts"
    icon_name: ClassVar[str] = "hosts"
    subtitle: ClassVar[str] = "Looking at this computer"

    def __init__(self, telemetry: TelemetryController, parent: QWidget | None = None) -> None:
        super().__init__(parent, scrolls=True)
        self._telemetry = telemetry
        self._plots: list[LivePlot] = []
        again = QPushButton("Probe again")
        again.setIcon(icon("refresh"))
        again.setObjectName("probe_again")
        again.setToolTip("Look at the hardware anew, after something was plugged in or installed.")
        again.clicked.connect(telemetry.probe)
        self.add_action(again)
        self._error = EmptyState("error", "", "", "Try again")
        self._error.triggered.connect(telemetry.probe)
        self._error.hide()
        self.body.addWidget(self._error)
        self._build_hardware()
        self._build_gpus()
        self._charts = CardGrid(min_width=340, max_columns=3)
        self.body.addWidget(self._charts)
        self.body.addStretch(1)
        telemetry.probed.connect(self.show_report)
        telemetry.probe_failed.connect(self._on_probe_failed)
        telemetry.sampled.connect(self._on_sampled)

    def activate(self) -> None:
        """Show what is known, and probe where nothing is."""
        if self._telemetry.report is None:
            self._telemetry.probe()
        else:
            self.show_report(self._telemetry.report)
        if self._telemetry.history.last is not None:
            self._show(self._telemetry.history.last)

    def show_report(self, report: HardwareReport) -> None:
        """Show what the computer is made of."""
        self._error.hide()
        self.set_heading(self.title, f"This computer: {report.host}")
        self._show_facts(hardware_facts(report))
        self._show_problems(report.problems)
        self._devices.set_report(report)
        self._gpu_card.setVisible(bool(report.gpus))
        self._gpu_table.setFixedHeight(36 + 40 * max(len(report.gpus), 1) + 4)

    def _build_hardware(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(SPACE.m)
        hardware = Card("Hardware")
        self._facts = QGridLayout()
        self._facts.setHorizontalSpacing(SPACE.l)
        self._facts.setVerticalSpacing(SPACE.s)
        self._facts.setColumnStretch(1, 1)
        hardware.body.addLayout(self._facts)
        hardware.body.addStretch(1)
        side = QVBoxLayout()
        side.setSpacing(SPACE.m)
        cores = Card("Cores, busy now")
        self._cores = HeatMap("Core")
        cores.body.addWidget(self._cores)
        self._problem_card = Card("What to know")
        self._problems = self._problem_card.body
        self._problem_card.hide()
        side.addWidget(cores)
        side.addWidget(self._problem_card)
        side.addStretch(1)
        top.addWidget(hardware, 3)
        top.addLayout(side, 2)
        self.body.addLayout(top)

    def _build_gpus(self) -> None:
        self._devices = DeviceTable(self)
        self._gpu_card = Card("GPUs")
        self._gpu_table = QTableView()
        self._gpu_table.setModel(self._devices)
        self._gpu_table.setObjectName("gpu_table")
        self._gpu_table.setAccessibleName("GPUs of this computer")
        self._gpu_table.verticalHeader().hide()
        self._gpu_table.verticalHeader().setDefaultSectionSize(40)
        self._gpu_table.setShowGrid(False)
        self._gpu_table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._gpu_table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self._gpu_table.horizontalHeader().setStretchLastSection(True)
        self._gpu_table.horizontalHeader().setDefaultAlignment(
            Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        )
        self._gpu_card.body.addWidget(self._gpu_table)
        self._gpu_card.hide()
        self.body.addWidget(self._gpu_card)

    def _show_facts(self, facts: tuple[Fact, ...]) -> None:
        _clear(self._facts)
        for row, fact in enumerate(facts):
            name, value = QLabel(fact.name), QLabel(fact.value)
            set_kind(name, "muted")
            value.setWordWrap(True)
            value.setTextFormat(Qt.TextFormat.PlainText)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._facts.addWidget(name, row, 0, Qt.AlignmentFlag.AlignTop)
            self._facts.addWidget(value, row, 1)

    def _show_problems(self, problems: tuple[HardwareProblem, ...]) -> None:
        _clear(self._problems)
        self._problem_card.setVisible(bool(problems))
        for problem in problems:
            self._problems.addWidget(_problem_row(problem))

    def _on_sampled(self, sample: TelemetrySample) -> None:
        if self.isVisible():
            self._show(sample)

    def _show(self, sample: TelemetrySample) -> None:
        self._cores.set_percents(core_percents(sample))
        self._devices.set_sample(sample)
        plans = plans_of(self._telemetry.history.keys())
        if plans != tuple(plot.plan for plot in self._plots):
            self._plots = [LivePlot(plan) for plan in plans]
            self._charts.set_cards(self._plots)
        for plot in self._plots:
            plot.show_history(self._telemetry.history)

    def _on_probe_failed(self, notice: Notice) -> None:
        self._error.set_content("error", notice.message, notice.hint, "Try again")
        self._error.show()


def _problem_row(problem: HardwareProblem) -> QWidget:
    box = QWidget()
    row = QHBoxLayout(box)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(SPACE.s + 2)
    icon_name, colour = _LOOKS[problem.severity]
    picture = QLabel()
    picture.setPixmap(icon_pixmap(icon_name, 18, colour, box.devicePixelRatioF()))
    words = QVBoxLayout()
    words.setSpacing(2)
    for text, kind in ((problem.message, "body"), (problem.hint, "caption")):
        if text:
            label = QLabel(text)
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            set_kind(label, "caption" if kind == "caption" else "body")
            words.addWidget(label)
    row.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
    row.addLayout(words, 1)
    return box


def _clear(layout: QGridLayout | QVBoxLayout) -> None:
    while (item := layout.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
