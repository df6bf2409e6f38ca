"""The Sweep tab of a run: the best trial, the importance of the parameters, all trials on parallel axes and as a table.

Widgets: ``sweep_best_open``, ``sweep_best_again``, ``parallel_plot``, ``importance_bars``, ``sweep_table``,
``sweep_clear`` (takes all ranges away). What is chosen in the picture is chosen in the table, and the other way round.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app.viewmodels.sweep_axes import choice_text, picture_of
from app.viewmodels.sweep_table import SweepTableModel, SweepTableOrder
from app.viewmodels.wording import number_text
from app.views.icons import icon
from app.views.page import scroll_area
from app.views.theme import SPACE, mono_font, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.elided_label import ElidedLabel
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.importance_bars import ImportanceBars
from app.views.widgets.parallel_plot import ParallelPlot
from core.contracts.ids import RunId
from core.contracts.notices import Notice
from core.contracts.sweeps import SweepReport, SweepTrial

_ROW = 32
_SHOWN_ROWS = 12
_MAX_COLUMN = 260
_MIN_COLUMN = 56
_GOALS = {"minimize": "smallest", "maximize": "largest"}
_SAMPLERS = {"tpe": "TPE", "random": "random values", "grid": "every combination"}
_PRUNERS = {"none": "", "asha": "ASHA", "median": "median rule"}


class SweepBoard(QWidget):
    """Shows one sweep. Thread: UI.

    Signals:
        run_wanted: ``RunId`` of a trial whose page is to be opened.
        again_wanted: ``RunId`` of a trial whose spec is to be launched again, through the wizard.
    """

    run_wanted = Signal(object)
    again_wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._report: SweepReport | None = None
        self._stack = QStackedWidget()
        self._waiting = EmptyState("sweep", "No trial yet", "The first trial shows here as soon as it is launched.")
        self._stack.addWidget(self._waiting)
        body = QVBoxLayout()
        body.setSpacing(SPACE.m)
        top = QHBoxLayout()
        top.setSpacing(SPACE.m)
        top.addWidget(self._build_best(), 1)
        top.addWidget(self._build_importance(), 1)
        body.addLayout(top)
        body.addWidget(self._build_plot())
        body.addWidget(self._build_table())
        body.addStretch(1)
        self._stack.addWidget(scroll_area(body, SPACE.s))
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, SPACE.s, 0, 0)
        outer.addWidget(self._stack)

    def show_report(self, report: SweepReport) -> None:
        """Show how a sweep stands; order, ranges and choice stay."""
        self._report = report
        self._stack.setCurrentIndex(1 if report.trials else 0)
        self._show_best(report)
        self._show_importance(report)
        self.plot.show_picture(picture_of(report), report.best)
        columns = self.model.columnCount()
        self.model.show_report(report)
        if self.model.columnCount() != columns:
            self._fit_columns()
        self._fit_rows()

    def show_problem(self, notice: Notice) -> None:
        """Say why there is nothing to see."""
        if self._report is None:
            self._waiting.set_content("sweep", notice.message, notice.hint)

    def clear(self) -> None:
        """Show nothing of any sweep."""
        self._report = None
        self.model.show_report(None)
        self.plot.clear_brushes()
        self._waiting.set_content("sweep", "No trial yet", "The first trial shows here as soon as it is launched.")
        self._stack.setCurrentIndex(0)

    # -- building --------------------------------------------------------------------------------------------------

    def _build_best(self) -> Card:
        card = Card("Best trial")
        self._value = QLabel()
        self._value.setObjectName("sweep_best_value")
        self._value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        set_kind(self._value, "value")
        self._metric = ElidedLabel("", "caption")
        self._values = QGridLayout()
        self._values.setHorizontalSpacing(SPACE.m)
        self._values.setVerticalSpacing(SPACE.xs)
        self._values.setColumnStretch(1, 1)
        card.body.addWidget(self._value)
        card.body.addWidget(self._metric)
        card.body.addLayout(self._values)
        card.body.addStretch(1)
        self._buttons: list[QPushButton] = []
        for name, text, picture, signal in (
            ("sweep_best_open", "Open run", "open", self.run_wanted),
            ("sweep_best_again", "Launch best again", "rocket", self.again_wanted),
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setIcon(icon(picture))
            button.clicked.connect(lambda _=False, signal=signal: self._emit_best(signal))
            self._buttons.append(button)
            card.title_row.addWidget(button)
        return card

    def _build_importance(self) -> Card:
        card = Card("Importance of parameters")
        self.bars = ImportanceBars()
        self._bars_words = QLabel()
        self._bars_words.setWordWrap(True)
        set_kind(self._bars_words, "muted")
        card.body.addWidget(self.bars)
        card.body.addWidget(self._bars_words)
        card.body.addStretch(1)
        return card

    def _build_plot(self) -> Card:
        card = Card("Trials")
        self._counts = QLabel()
        self._counts.setObjectName("sweep_counts")
        set_kind(self._counts, "caption")
        self._clear = QPushButton("Show all")
        self._clear.setObjectName("sweep_clear")
        set_role(self._clear, "ghost")
        self._clear.hide()
        card.title_row.addWidget(self._counts)
        card.title_row.addWidget(self._clear)
        self.plot = ParallelPlot()
        self.plot.kept.connect(self._on_kept)
        self.plot.chosen.connect(self._on_chosen_in_plot)
        self.plot.opened.connect(self._open)
        self._clear.clicked.connect(self.plot.clear_brushes)
        card.body.addWidget(self.plot)
        words = QLabel(
            "Strong lines are good trials, green is the best, dotted ones have no value yet. Drag along an axis to keep a "
            "range, click it to let go; double click a line to open its run."
        )
        words.setWordWrap(True)
        set_kind(words, "caption")
        card.body.addWidget(words)
        return card

    def _build_table(self) -> Card:
        card = Card("All trials")
        self.model = SweepTableModel(self)
        self.order = SweepTableOrder(self.model, self)
        self.table = QTableView()
        self.table.setObjectName("sweep_table")
        self.table.setAccessibleName("Trials of the sweep")
        self.table.setModel(self.order)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(2, Qt.SortOrder.AscendingOrder)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.setTabKeyNavigation(False)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(_ROW)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.horizontalHeader().setMinimumSectionSize(_MIN_COLUMN)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.table.setToolTip("Enter or double click: the trial's own run")
        self.table.doubleClicked.connect(self._on_activated)
        for key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            enter = QShortcut(QKeySequence(key), self.table)
            enter.setContext(Qt.ShortcutContext.WidgetShortcut)
            enter.activated.connect(lambda: self._on_activated(self.table.currentIndex()))
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        card.body.addWidget(self.table)
        return card

    # -- showing ---------------------------------------------------------------------------------------------------

    def _show_best(self, report: SweepReport) -> None:
        best = report.best_trial
        while (item := self._values.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for button in self._buttons:
            button.setEnabled(best is not None and bool(best.run_id))
        how = " · ".join(
            part for part in (_SAMPLERS.get(report.sampler, report.sampler), _PRUNERS.get(report.pruner, "")) if part
        )
        if best is None or best.value is None:
            self._value.setText("—")
            self._metric.set_whole(
                f"{_GOALS[report.goal]} {report.metric} is sought ({how}); no trial has finished yet"
            )
            return
        self._value.setText(number_text(best.value))
        self._metric.set_whole(f"{_GOALS[report.goal]} {report.metric} so far ({how}), trial {best.number}")
        for row, parameter in enumerate(report.parameters):
            self._values.addWidget(ElidedLabel(parameter.label, "caption"), row, 0)
            value = ElidedLabel(choice_text(best.values.get(parameter.path)))
            value.setFont(mono_font(12))
            self._values.addWidget(value, row, 1)

    def _show_importance(self, report: SweepReport) -> None:
        self.bars.show_parameters(report.parameters)
        self.bars.setVisible(bool(self.bars.rows))
        words = report.importance_note or (
            "" if self.bars.rows else "Importance is told once two trials have finished."
        )
        self._bars_words.setText(words)
        self._bars_words.setVisible(bool(words))

    def _show_counts(self, kept: AbstractSet[int] | None) -> None:
        report = self._report
        if report is None:
            return
        parts = [f"{len(report.trials)} of {report.planned}"]
        parts += [f"{report.count(s)} {s}" for s in ("running", "finished", "pruned", "failed") if report.count(s)]
        if kept is not None:
            parts.append(f"{len(kept)} in the ranges")
        self._counts.setText(" · ".join(parts))
        self._clear.setVisible(kept is not None)

    def _fit_columns(self) -> None:
        self.table.resizeColumnsToContents()
        for column in range(self.model.columnCount()):
            self.table.setColumnWidth(column, min(self.table.columnWidth(column) + SPACE.xs, _MAX_COLUMN))
        report = self._report
        if report is not None:
            descending = report.goal == "maximize"
            self.table.sortByColumn(2, Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder)

    def _fit_rows(self) -> None:
        rows = min(max(self.model.rowCount(), 1), _SHOWN_ROWS)
        header = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(header + rows * _ROW + self.table.horizontalScrollBar().sizeHint().height() + 4)

    # -- choosing --------------------------------------------------------------------------------------------------

    def _trial(self, number: int) -> SweepTrial | None:
        return None if self._report is None else next((t for t in self._report.trials if t.number == number), None)

    def _open(self, number: int) -> None:
        trial = self._trial(number)
        if trial is not None and trial.run_id:
            self.run_wanted.emit(RunId(trial.run_id))

    def _emit_best(self, signal: object) -> None:
        best = None if self._report is None else self._report.best_trial
        if best is not None and best.run_id:
            signal.emit(RunId(best.run_id))  # pyright: ignore[reportAttributeAccessIssue]

    def _on_kept(self, kept: AbstractSet[int] | None) -> None:
        chosen = self.plot.marked
        self.order.keep(kept)
        # Where the chosen trial is left out, the table would choose another by itself.
        row = None if chosen is None else self.order.row_of(chosen)
        self.table.setCurrentIndex(QModelIndex() if row is None else self.order.index(row, 0))
        self._show_counts(kept)

    def _on_chosen_in_plot(self, number: int) -> None:
        row = self.order.row_of(number)
        if row is not None:
            self.table.setCurrentIndex(self.order.index(row, 0))

    def _on_row(self, current: QModelIndex, _previous: QModelIndex) -> None:
        trial = self.order.trial_at(current)
        self.plot.choose(None if trial is None else trial.number)

    def _on_activated(self, index: QModelIndex) -> None:
        trial = self.order.trial_at(index)
        if trial is not None:
            self._open(trial.number)
