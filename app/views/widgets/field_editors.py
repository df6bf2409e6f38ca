"""One editor for each kind of form field. Their inner input is called ``field_<path>`` so that it can be found.

No editor changes its value by the mouse wheel: scrolling past a form must never change it. Numbers are typed (with
arrow keys to step), so that ``3e-4`` is as welcome as ``0.0003`` and no range of a spin box limits them.
"""

from __future__ import annotations

import math
from pathlib import Path

from PySide6.QtCore import QEvent, QSignalBlocker, Qt, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QKeyEvent, QWheelEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)

from app.viewmodels.form_state import parse_number, show_number
from app.views.theme import SPACE, mono_font, set_kind
from core.contracts.forms import FieldKind, FormField, FormValue

_NUMBER_WIDTH = 160
_CHOICE_WIDTH = 240


class FieldEditor(QWidget):
    """An editor of one field.

    Signals:
        edited: The new ``FormValue``, by the user's hand.
    """

    edited = Signal(object)

    def __init__(self, field: FormField, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.field = field
        self.row = QHBoxLayout(self)
        self.row.setContentsMargins(0, 0, 0, 0)
        self.row.setSpacing(SPACE.s)

    def show_value(self, value: FormValue) -> None:
        """Show a value without telling that it was edited."""
        raise NotImplementedError

    def input(self) -> QWidget:
        """Return the widget that takes the focus."""
        raise NotImplementedError

    def set_invalid(self, *, invalid: bool) -> None:
        """Mark the input as wrong."""
        widget = self.input()
        if bool(widget.property("invalid")) != invalid:
            widget.setProperty("invalid", invalid)
            widget.style().unpolish(widget)
            widget.style().polish(widget)

    def _adopt(self, widget: QWidget) -> None:
        widget.setObjectName(f"field_{self.field.path}")
        widget.setAccessibleName(self.field.label)
        widget.setAccessibleDescription(self.field.description)
        widget.setToolTip(self.field.description)

    def _add_unit(self) -> None:
        if self.field.unit:
            unit = QLabel(self.field.unit)
            set_kind(unit, "muted")
            self.row.addWidget(unit)


class _TextEditor(FieldEditor):
    def __init__(self, field: FormField) -> None:
        super().__init__(field)
        self._edit = QLineEdit()
        self._adopt(self._edit)
        self._edit.textEdited.connect(self._on_edited)
        self.row.addWidget(self._edit, 1)
        self._add_unit()

    def show_value(self, value: FormValue) -> None:
        text = "" if value is None else str(value)
        if text != self._edit.text():
            self._edit.setText(text)

    def input(self) -> QWidget:
        return self._edit

    def _on_edited(self, text: str) -> None:
        self.edited.emit(None if not text and self.field.optional else text)


class _NumberLine(QLineEdit):
    """Steps its number with the arrow keys.

    Signals:
        stepped: Number of steps up (negative: down).
    """

    stepped = Signal(int)

    def keyPressEvent(self, arg__1: QKeyEvent) -> None:
        """Step, or type."""
        steps = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1, Qt.Key.Key_PageUp: 10, Qt.Key.Key_PageDown: -10}
        number = steps.get(Qt.Key(arg__1.key()))
        if number is None:
            super().keyPressEvent(arg__1)
        else:
            self.stepped.emit(number)


class _NumberEditor(FieldEditor):
    def __init__(self, field: FormField) -> None:
        super().__init__(field)
        self._edit = _NumberLine()
        self._adopt(self._edit)
        self._edit.setFixedWidth(_NUMBER_WIDTH)
        self._edit.textEdited.connect(lambda text: self.edited.emit(parse_number(text, field.kind)))
        self._edit.stepped.connect(self._on_stepped)
        self._edit.setPlaceholderText("automatic" if field.optional else "")
        self.row.addWidget(self._edit)
        self._add_unit()
        self.row.addStretch(1)

    def show_value(self, value: FormValue) -> None:
        if parse_number(self._edit.text(), self.field.kind) != value or not self._edit.text():
            self._edit.setText(show_number(value))

    def input(self) -> QWidget:
        return self._edit

    def _on_stepped(self, number: int) -> None:
        value = parse_number(self._edit.text(), self.field.kind)
        if not isinstance(value, (int, float)):
            value = self.field.default if isinstance(self.field.default, (int, float)) else 0
        stepped = self._bounded(value, value + number * self._step_of(value))
        self._edit.setText(show_number(stepped))
        self.edited.emit(stepped)

    def _step_of(self, value: float) -> float:
        """Return 1 for whole numbers, a tenth of the number's magnitude otherwise."""
        if self.field.kind is FieldKind.INTEGER or not value:
            return 1 if self.field.kind is FieldKind.INTEGER else 0.1
        return float(10.0 ** (math.floor(math.log10(abs(value))) - 1))

    def _bounded(self, before: float, wanted: float) -> int | float:
        """Return the wanted number inside the bounds; an excluded bound is not stepped onto."""
        low, high = self.field.minimum, self.field.maximum
        if low is not None and self.field.exclusive_minimum and wanted <= low:
            wanted = before
        elif low is not None:
            wanted = max(wanted, low)
        if high is not None:
            wanted = min(wanted, high)
        return int(wanted) if self.field.kind is FieldKind.INTEGER else float(f"{wanted:.12g}")


class _SwitchEditor(FieldEditor):
    def __init__(self, field: FormField) -> None:
        super().__init__(field)
        self._box = QCheckBox()
        self._adopt(self._box)
        self._box.toggled.connect(self._on_toggled)
        self.row.addWidget(self._box)
        self.row.addStretch(1)

    def show_value(self, value: FormValue) -> None:
        with QSignalBlocker(self._box):
            self._box.setChecked(bool(value))
        self._box.setText("On" if value else "Off")

    def input(self) -> QWidget:
        return self._box

    def _on_toggled(self, checked: bool) -> None:
        self._box.setText("On" if checked else "Off")
        self.edited.emit(checked)


class _ChoiceBox(QComboBox):
    """A combo box that leaves the wheel to the page."""

    def wheelEvent(self, e: QWheelEvent) -> None:
        """Let the page scroll."""
        e.ignore()


class _ChoiceEditor(FieldEditor):
    def __init__(self, field: FormField) -> None:
        super().__init__(field)
        self._box = _ChoiceBox()
        self._adopt(self._box)
        self._box.setMinimumWidth(_CHOICE_WIDTH)
        if field.optional:
            self._box.addItem("Automatic", None)
        for choice in field.choices:
            self._box.addItem(choice, choice)
        self._box.activated.connect(lambda _: self.edited.emit(self._box.currentData()))
        self.row.addWidget(self._box)
        self._add_unit()
        self.row.addStretch(1)

    def show_value(self, value: FormValue) -> None:
        index = self._box.findData(value)
        if index < 0 and value is not None:
            self._box.addItem(str(value), value)
            index = self._box.count() - 1
        self._box.setCurrentIndex(index)

    def input(self) -> QWidget:
        return self._box


class _PathLine(QLineEdit):
    """A line that takes a dropped file or folder.

    Signals:
        dropped: The path (str).
    """

    dropped = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setAcceptDrops(True)

    def dragEnterEvent(self, arg__1: QDragEnterEvent) -> None:
        """Take one local file."""
        if arg__1.mimeData().hasUrls() and arg__1.mimeData().urls()[0].isLocalFile():
            arg__1.acceptProposedAction()
        else:
            super().dragEnterEvent(arg__1)

    def dropEvent(self, arg__1: QDropEvent) -> None:
        """Show the file's path."""
        if arg__1.mimeData().hasUrls():
            self.dropped.emit(arg__1.mimeData().urls()[0].toLocalFile())
            arg__1.acceptProposedAction()
        else:
            super().dropEvent(arg__1)


class _PathEditor(FieldEditor):
    def __init__(self, field: FormField) -> None:
        super().__init__(field)
        self._edit = _PathLine()
        self._adopt(self._edit)
        self._edit.textEdited.connect(self._emit)
        self._edit.dropped.connect(self._take)
        browse = QPushButton("Browse…")
        browse.setObjectName(f"browse_{field.path}")
        browse.setAccessibleName(f"Browse for {field.label}")
        browse.clicked.connect(self._browse)
        self.row.addWidget(self._edit, 1)
        self.row.addWidget(browse)

    def show_value(self, value: FormValue) -> None:
        text = "" if value is None else str(value)
        if text != self._edit.text():
            self._edit.setText(text)

    def input(self) -> QWidget:
        return self._edit

    def _emit(self, text: str) -> None:
        self.edited.emit(None if not text and self.field.optional else text)

    def _take(self, path: str) -> None:
        self._edit.setText(path)
        self._emit(path)

    def _browse(self) -> None:
        start = self._edit.text() if self._edit.text() and Path(self._edit.text()).exists() else str(Path.home())
        if self.field.kind is FieldKind.FOLDER:
            chosen = QFileDialog.getExistingDirectory(self, self.field.label, start)
        else:
            chosen, _ = QFileDialog.getOpenFileName(self, self.field.label, start)
        if chosen:
            self._take(chosen)


class _LinesEdit(QPlainTextEdit):
    """A few lines of text; Tab leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.setTabChangesFocus(True)
        self.setFont(mono_font(12))
        self.textChanged.connect(self._fit)
        self._fit()

    def _fit(self) -> None:
        lines = max(2, min(self.blockCount(), 8))
        self.setFixedHeight(lines * self.fontMetrics().lineSpacing() + 24)

    def changeEvent(self, e: QEvent) -> None:
        """Fit anew after a change of font."""
        super().changeEvent(e)
        if e.type() == QEvent.Type.FontChange:
            self._fit()


class _LinesEditor(FieldEditor):
    """A list (one item a line) or a mapping (``NAME=value`` a line)."""

    def __init__(self, field: FormField) -> None:
        super().__init__(field)
        self._edit = _LinesEdit()
        self._adopt(self._edit)
        is_mapping = field.kind is FieldKind.MAPPING
        self._edit.setPlaceholderText("NAME=value, one a line" if is_mapping else "One a line")
        self._edit.textChanged.connect(self._on_changed)
        self.row.addWidget(self._edit, 1)

    def show_value(self, value: FormValue) -> None:
        if value == self._value():
            return
        if isinstance(value, dict):
            text = "\n".join(f"{name}={content}" for name, content in value.items())
        else:
            text = "\n".join(value) if isinstance(value, list) else str(value or "")
        with QSignalBlocker(self._edit):
            self._edit.setPlainText(text)

    def input(self) -> QWidget:
        return self._edit

    def _value(self) -> FormValue:
        lines = [line.strip() for line in self._edit.toPlainText().splitlines() if line.strip()]
        if self.field.kind is not FieldKind.MAPPING:
            return lines
        pairs = (line.partition("=") for line in lines)
        return {name.strip(): content.strip() for name, _, content in pairs}

    def _on_changed(self) -> None:
        self.edited.emit(self._value())


_EDITORS: dict[FieldKind, type[FieldEditor]] = {
    FieldKind.TEXT: _TextEditor,
    FieldKind.INTEGER: _NumberEditor,
    FieldKind.NUMBER: _NumberEditor,
    FieldKind.SWITCH: _SwitchEditor,
    FieldKind.CHOICE: _ChoiceEditor,
    FieldKind.FILE: _PathEditor,
    FieldKind.FOLDER: _PathEditor,
    FieldKind.LIST: _LinesEditor,
    FieldKind.MAPPING: _LinesEditor,
}


def make_editor(field: FormField) -> FieldEditor:
    """Return a new editor for a field."""
    return _EDITORS[field.kind](field)
