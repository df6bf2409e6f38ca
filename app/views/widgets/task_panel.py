"""What a long piece of work does: its stage, a bar, its log, and Cancel.

Widgets: ``task_stage``, ``task_log``, ``task_cancel``.
"""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.controllers.tasks import Task
from app.views.theme import SPACE, mono_font, set_kind
from app.views.widgets.elided_label import ElidedLabel
from core.contracts.hosts import Progress
from core.contracts.notices import Notice

_MAX_LINES = 2000
_SCALE = 1000


class TaskPanel(QWidget):
    """Follows one task at a time; stays with the last words of one that failed."""

    def __init__(self, *, has_log: bool = True, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._task: Task | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.s)
        row = QHBoxLayout()
        row.setSpacing(SPACE.m)
        self._stage = ElidedLabel()
        self._stage.setObjectName("task_stage")
        self._cancel = QPushButton("Cancel")
        self._cancel.setObjectName("task_cancel")
        self._cancel.clicked.connect(self._on_cancel)
        row.addWidget(self._stage, 1)
        row.addWidget(self._cancel)
        column.addLayout(row)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName("Progress")
        column.addWidget(self._bar)
        self._problem = QLabel()
        self._problem.setWordWrap(True)
        self._problem.setObjectName("task_problem")
        set_kind(self._problem, "error")
        column.addWidget(self._problem)
        self._log = QPlainTextEdit()
        self._log.setObjectName("task_log")
        self._log.setAccessibleName("Log of the work")
        self._log.setReadOnly(True)
        self._log.setMaximumBlockCount(_MAX_LINES)
        self._log.setFont(mono_font(12))
        self._log.setMinimumHeight(96)
        column.addWidget(self._log, 1)
        self._has_log = has_log
        self._log.setVisible(has_log)
        self.setVisible(False)

    def follow(self, task: Task | None) -> None:
        """Show a task; None hides the panel."""
        if task is self._task and task is not None:
            return
        self._let_go()
        self.setVisible(task is not None)
        if task is None:
            return
        self._task = task
        self._log.clear()
        self._problem.hide()
        self._stage.set_whole(f"{task.title}…")
        self._bar.show()
        self._bar.setRange(0, 0)
        self._cancel.setText("Cancel")
        self._cancel.setEnabled(True)
        self._cancel.show()
        task.progressed.connect(self.show_progress)
        task.failed.connect(self.show_problem)
        task.ended.connect(self._on_ended)

    def show_progress(self, progress: Progress) -> None:
        """Show how far it is."""
        if progress.stage:
            self._stage.set_whole(progress.stage)
        self._bar.setRange(0, 0 if progress.done is None else _SCALE)
        if progress.done is not None:
            self._bar.setValue(round(_SCALE * min(max(progress.done, 0.0), 1.0)))
        if progress.line:
            self._log.appendPlainText(progress.line)

    def show_problem(self, notice: Notice) -> None:
        """Show why it failed."""
        self._problem.setText(f"{notice.message} {notice.hint}".strip())
        self._problem.show()

    def _on_cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._cancel.setEnabled(False)
            self._cancel.setText("Cancelling…")

    def _on_ended(self) -> None:
        failed = not self._problem.isHidden()
        self._task = None
        self._bar.hide()
        self._cancel.hide()
        self._stage.set_whole("It did not work" if failed else "Done")
        self._log.setVisible(self._has_log and failed)
        self.setVisible(failed)

    def _let_go(self) -> None:
        if self._task is not None:
            self._task.progressed.disconnect(self.show_progress)
            self._task.failed.disconnect(self.show_problem)
            self._task.ended.disconnect(self._on_ended)
            self._task = None
        self._log.setVisible(self._has_log)
