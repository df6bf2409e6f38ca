"""Last step of the wizard: all problems at once, each leading to its field; the command and the spec that equal it.

A run that goes elsewhere also shows what the check of its hosts found (``review_checks``, ``check_again``) and what the
launch would do there (the tab Plan of ``review_tabs``).
"""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QPushButton, QTabWidget, QVBoxLayout, QWidget

from app.controllers.tasks import Task
from app.views.icons import icon, icon_pixmap
from app.views.page import scroll_area
from app.views.theme import SPACE, mono_font, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.estimate_badge import EstimateBadge
from app.views.widgets.finding_list import FindingList
from app.views.widgets.task_panel import TaskPanel
from app.views.widgets.toml_view import TomlView
from core.contracts.errors import FieldProblem
from core.contracts.forms import RunKindInfo, SpecReview
from core.contracts.hosts import CheckReport, FindingLevel
from core.contracts.notices import Notice

_MAX_PROBLEMS = 30


def _with_gap(card: Card) -> QWidget:
    holder = QWidget()
    column = QVBoxLayout(holder)
    column.setContentsMargins(0, SPACE.s, 0, 0)
    column.addWidget(card)
    return holder


class ReviewStep(QWidget):
    """Verdict, problems, command and spec. Problem rows are called ``problem_0``, ``problem_1``, ...

    Signals:
        field_wanted: Dotted path (str) of a field to go to.
        export_wanted: Save the spec as a file.
        check_wanted: Look at the hosts again.
    """

    field_wanted = Signal(object)
    export_wanted = Signal()
    check_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._info: RunKindInfo | None = None
        self._where = ""
        columns = QHBoxLayout(self)
        columns.setContentsMargins(0, 0, 0, 0)
        columns.setSpacing(SPACE.m)
        left = QVBoxLayout()
        left.setSpacing(SPACE.m)
        left.addWidget(self._build_verdict())
        left.addWidget(self._build_estimate())
        left.addWidget(self._build_checks())
        left.addWidget(self._build_command())
        left.addStretch(1)
        columns.addWidget(scroll_area(left, SPACE.s), 5)
        columns.addWidget(self._build_texts(), 6)

    def show_waiting(self, info: RunKindInfo) -> None:
        """Say that the check is under way."""
        self._info = info
        self._set_verdict("clock", "text_muted", "Checking…", "Looking at the settings and at the files they name.")
        self._set_problems((), ())
        self._checks.hide()
        self._estimate_card.hide()
        self._tabs.setTabVisible(0, False)

    def show_review(self, review: SpecReview) -> None:
        """Show the verdict."""
        count = len(review.problems)
        if count:
            words = "1 problem to solve" if count == 1 else f"{count} problems to solve"
            self._set_verdict("error", "danger", words, "Press one to go to its field.")
        else:
            self._set_verdict("success", "success", "Ready to launch", "Nothing stands against it.")
        self._set_problems(review.problems, review.warnings)
        self._estimate_card.setVisible(review.estimate is not None)
        self.estimate.show_estimate(review.estimate)
        self._command.setText(review.command)
        self._command_card.setVisible(bool(review.command))
        self._spec.set_text(review.toml)
        self._spec_card.setVisible(bool(review.toml))

    def show_remote(self, where: str) -> None:
        """Say that the run goes elsewhere: its plan is being made."""
        self._where = f"It goes to {where}."
        self._sentence.setText(self._where)
        self._plan.setPlainText("Making the plan…")
        self._tabs.setTabVisible(0, True)
        self._tabs.setCurrentIndex(0)

    def show_checking(self, task: Task) -> None:
        """Say that the hosts are being looked at."""
        self._checks.show()
        self._findings.show_reports(())
        self._again.setEnabled(False)
        self._check_words.setText("")
        self._check_words.hide()
        self.panel.follow(task)

    def show_checks(self, reports: tuple[CheckReport, ...]) -> None:
        """Show what was found on the hosts, and what that means for the launch."""
        self._findings.show_reports(reports)
        self._again.setEnabled(True)
        levels = [finding.level for report in reports for finding in report.findings]
        errors, warnings = levels.count(FindingLevel.ERROR), levels.count(FindingLevel.WARNING)
        if errors:
            words = "1 error on a host" if errors == 1 else f"{errors} errors on the hosts"
            self._set_verdict("error", "danger", words, "Each says below what to do about it; then check again.")
        elif warnings:
            words = "Ready to launch, with " + ("1 warning" if warnings == 1 else f"{warnings} warnings")
            self._set_verdict("warning", "warning", words, self._where)
        else:
            self._set_verdict("success", "success", "Ready to launch", self._where)

    def show_check_problem(self, notice: Notice) -> None:
        """Say why the hosts could not be looked at."""
        self._again.setEnabled(True)
        self._check_words.setText(f"{notice.message} {notice.hint}".strip())
        self._check_words.show()

    def show_plan(self, text: str) -> None:
        """Show what the launch would do."""
        self._plan.setPlainText(text)

    def toml(self) -> str:
        """Return the spec shown."""
        return self._spec.text()

    def _build_verdict(self) -> Card:
        card = Card()
        row = QHBoxLayout()
        row.setSpacing(SPACE.m)
        self._picture = QLabel()
        words = QVBoxLayout()
        words.setSpacing(2)
        self._verdict = QLabel()
        self._verdict.setObjectName("review_verdict")
        set_kind(self._verdict, "h2")
        self._sentence = QLabel()
        set_kind(self._sentence, "muted")
        self._sentence.setWordWrap(True)
        words.addWidget(self._verdict)
        words.addWidget(self._sentence)
        row.addWidget(self._picture, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        card.body.addLayout(row)
        self._list = QVBoxLayout()
        self._list.setSpacing(SPACE.xs)
        card.body.addLayout(self._list)
        return card

    def _build_estimate(self) -> Card:
        self._estimate_card = Card("Memory")
        self.estimate = EstimateBadge()
        self._estimate_card.body.addWidget(self.estimate)
        self._estimate_card.hide()
        return self._estimate_card

    def _build_command(self) -> Card:
        self._command_card = Card("The same on the command line")
        row = QHBoxLayout()
        self._command = QLabel()
        self._command.setFont(mono_font(12))
        self._command.setTextFormat(Qt.TextFormat.PlainText)
        self._command.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._command.setWordWrap(True)
        copy = QPushButton("Copy")
        copy.setObjectName("copy_command")
        copy.setAccessibleName("Copy the command")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self._command.text()))
        row.addWidget(self._command, 1)
        row.addWidget(copy, 0, Qt.AlignmentFlag.AlignTop)
        self._command_card.body.addLayout(row)
        return self._command_card

    def _build_checks(self) -> Card:
        self._checks = Card("Check of the hosts")
        self._checks.setObjectName("review_checks")
        self._again = QPushButton("Check again")
        self._again.setObjectName("check_again")
        set_role(self._again, "ghost")
        self._again.clicked.connect(self.check_wanted)
        self._checks.title_row.addWidget(self._again)
        self.panel = TaskPanel(has_log=False)
        self._findings = FindingList()
        self._check_words = QLabel()
        self._check_words.setWordWrap(True)
        self._check_words.setTextFormat(Qt.TextFormat.PlainText)
        set_kind(self._check_words, "error")
        for widget in (self.panel, self._check_words, self._findings):
            self._checks.body.addWidget(widget)
        self._checks.hide()
        return self._checks

    def _build_texts(self) -> QTabWidget:
        self._tabs = QTabWidget()
        self._tabs.setObjectName("review_tabs")
        self._tabs.setDocumentMode(True)
        self._plan = QPlainTextEdit()
        self._plan.setObjectName("review_plan")
        self._plan.setAccessibleName("What the launch would do")
        self._plan.setReadOnly(True)
        self._plan.setFont(mono_font(12))
        self._plan.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        plan = Card()
        plan.body.addWidget(self._plan, 1)
        self._tabs.addTab(_with_gap(plan), "Plan")
        self._tabs.addTab(_with_gap(self._build_spec()), "Spec")
        self._tabs.setTabVisible(0, False)
        return self._tabs

    def _build_spec(self) -> Card:
        self._spec_card = Card()
        self._spec = TomlView()
        export = QPushButton("Save as file…")
        export.setIcon(icon("export"))
        export.setObjectName("wizard_export")
        export.clicked.connect(self.export_wanted)
        self._spec.buttons.insertWidget(1, export)
        self._spec_card.body.addWidget(self._spec, 1)
        return self._spec_card

    def _set_verdict(self, icon_name: str, colour: str, words: str, sentence: str) -> None:
        self._picture.setPixmap(icon_pixmap(icon_name, 28, colour, self.devicePixelRatioF()))
        self._verdict.setText(words)
        self._sentence.setText(sentence)

    def _set_problems(self, problems: tuple[FieldProblem, ...], warnings: tuple[FieldProblem, ...]) -> None:
        while (item := self._list.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        for n, problem in enumerate(problems[:_MAX_PROBLEMS]):
            self._list.addWidget(self._row(problem, f"problem_{n}", "error", "danger"))
        for n, warning in enumerate(warnings[:_MAX_PROBLEMS]):
            self._list.addWidget(self._row(warning, f"warning_{n}", "warning", "warning"))

    def _row(self, problem: FieldProblem, name: str, icon_name: str, colour: str) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, SPACE.xs, 0, SPACE.xs)
        picture = QLabel()
        picture.setPixmap(icon_pixmap(icon_name, 16, colour, self.devicePixelRatioF()))
        label = self._label_of(problem.field)
        text = QLabel(f"{label}: {problem.message} {problem.hint}".strip(" :"))
        text.setTextFormat(Qt.TextFormat.PlainText)
        text.setWordWrap(True)
        layout.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(text, 1)
        if problem.field:
            go = QPushButton("Go to field")
            go.setObjectName(name)
            go.setIconSize(QSize(14, 14))
            go.setAccessibleName(f"Go to {label}")
            set_role(go, "ghost")
            go.clicked.connect(lambda: self.field_wanted.emit(problem.field))
            layout.addWidget(go, 0, Qt.AlignmentFlag.AlignTop)
        return row

    def _label_of(self, path: str) -> str:
        fields = self._info.fields if self._info is not None else ()
        return next((field.label for field in fields if field.path == path), path)
