"""Toasts: notices that slide in at the lower right, stay as long as they matter, and carry the remedy as a button."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QEnterEvent, QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.views.icons import icon, icon_pixmap
from app.views.theme import SPACE, LabelKind, mono_font, set_kind, set_role
from core.contracts.notices import Notice, Severity

_WIDTH = 400
_MAX_SHOWN = 4
_STAY_MS = {Severity.INFO: 6000, Severity.SUCCESS: 8000, Severity.WARNING: 12_000, Severity.ERROR: 0}
_LOOKS = {
    Severity.INFO: ("info", "info"),
    Severity.SUCCESS: ("success", "success"),
    Severity.WARNING: ("warning", "warning"),
    Severity.ERROR: ("error", "danger"),
}


class Toast(QFrame):
    """One notice.

    Attributes:
        notice: What it shows.

    Signals:
        closed: It is done with.
        run_wanted: Id of the run to open.
    """

    closed = Signal()
    run_wanted = Signal(str)

    def __init__(self, notice: Notice, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.notice = notice
        self.setObjectName("toast")
        self.setProperty("floating", True)
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground, on=True)
        self.setFixedWidth(_WIDTH)
        self.setAccessibleName(notice.message)
        self._timer = QTimer(self, singleShot=True)
        self._timer.timeout.connect(self.closed)
        row = QHBoxLayout(self)
        row.setContentsMargins(SPACE.m, SPACE.m - 4, SPACE.s, SPACE.m - 4)
        row.setSpacing(SPACE.s + 4)
        icon_name, colour = _LOOKS[notice.severity]
        picture = QLabel()
        picture.setPixmap(icon_pixmap(icon_name, 22, colour, self.devicePixelRatioF()))
        row.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(self._words(), 1)
        close = QToolButton()
        close.setIcon(icon("close"))
        close.setAccessibleName("Dismiss")
        close.setToolTip("Dismiss")
        close.clicked.connect(self.closed)
        row.addWidget(close, 0, Qt.AlignmentFlag.AlignTop)

    def start(self) -> None:
        """Begin the time for which it stays; errors stay until dismissed."""
        stay = _STAY_MS[self.notice.severity]
        if stay:
            self._timer.start(stay)

    def _words(self) -> QVBoxLayout:
        words = QVBoxLayout()
        words.setSpacing(SPACE.xs)
        words.addWidget(_wrapped(self.notice.message, "h3"))
        if self.notice.hint:
            words.addWidget(_wrapped(self.notice.hint, "caption"))
        buttons = QHBoxLayout()
        buttons.setSpacing(SPACE.s)
        run_id = self.notice.run_id
        if run_id is not None:
            opener = QPushButton("Open run")
            opener.clicked.connect(lambda: self._open_run(run_id))
            buttons.addWidget(opener)
        if self.notice.details:
            details = QPushButton("Details")
            details.clicked.connect(self._show_details)
            buttons.addWidget(details)
        if buttons.count():
            buttons.addStretch(1)
            words.addSpacing(SPACE.xs)
            words.addLayout(buttons)
        return words

    def _open_run(self, run_id: str) -> None:
        self.run_wanted.emit(run_id)
        self.closed.emit()

    def _show_details(self) -> None:
        self._timer.stop()
        dialog = DetailsDialog(self.notice, self.window())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def enterEvent(self, event: QEnterEvent) -> None:
        """Stay while the mouse is over it."""
        self._timer.stop()
        super().enterEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        """Begin the time anew when the mouse leaves."""
        self.start()
        super().leaveEvent(event)


class DetailsDialog(QDialog):
    """The text behind a notice, to read and to copy."""

    def __init__(self, notice: Notice, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Details")
        self.resize(760, 460)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(SPACE.l, SPACE.l, SPACE.l, SPACE.m)
        layout.setSpacing(SPACE.m)
        layout.addWidget(_wrapped(notice.message, "h2"))
        if notice.hint:
            layout.addWidget(_wrapped(notice.hint, "muted"))
        text = QPlainTextEdit(notice.details)
        text.setReadOnly(True)
        text.setFont(mono_font())
        text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        layout.addWidget(text, 1)
        buttons = QHBoxLayout()
        copy = QPushButton("Copy")
        copy.setIcon(icon("copy"))
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(notice.details))
        close = QPushButton("Close")
        set_role(close, "primary")
        close.clicked.connect(self.accept)
        buttons.addStretch(1)
        buttons.addWidget(copy)
        buttons.addWidget(close)
        layout.addLayout(buttons)


class ToastStack(QObject):
    """Shows notices over the lower right corner of a window; the oldest gives way to the fifth.

    Signals:
        run_wanted: Id of the run to open.
    """

    run_wanted = Signal(str)

    def __init__(self, window: QWidget, bottom_margin: int) -> None:
        super().__init__(window)
        self._window = window
        self._bottom_margin = bottom_margin
        self._toasts: list[Toast] = []
        window.installEventFilter(self)

    def show_notice(self, notice: Notice) -> None:
        """Show a notice; one that is shown already is not shown twice."""
        if any(toast.notice == notice for toast in self._toasts):
            return
        toast = Toast(notice, self._window)
        toast.closed.connect(lambda: self._drop(toast))
        toast.run_wanted.connect(self.run_wanted)
        self._toasts.append(toast)
        if len(self._toasts) > _MAX_SHOWN:
            self._drop(self._toasts[0])
        toast.adjustSize()
        toast.show()
        toast.start()
        self._arrange()

    def toasts(self) -> list[Toast]:
        """Return what is shown, oldest first."""
        return self._toasts

    def _drop(self, toast: Toast) -> None:
        if toast in self._toasts:
            self._toasts.remove(toast)
            toast.hide()
            toast.deleteLater()
            self._arrange()

    def _arrange(self) -> None:
        bottom = self._window.height() - self._bottom_margin - SPACE.m
        for toast in reversed(self._toasts):
            toast.resize(_WIDTH, toast.heightForWidth(_WIDTH))
            bottom -= toast.height()
            toast.move(self._window.width() - _WIDTH - SPACE.l, bottom)
            toast.raise_()
            bottom -= SPACE.s

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep to the corner when the window changes its size."""
        if event.type() == QEvent.Type.Resize:
            self._arrange()
        return super().eventFilter(watched, event)


def _wrapped(text: str, kind: LabelKind) -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    set_kind(label, kind)
    return label
