"""The real application in a child process, obeying a test's hands: it clicks, types and looks, nothing else.

``python -P -m tests.helpers.window_driver`` runs ``app.__main__.main`` unchanged. A thread reads one JSON command a line
from stdin, has it done on the UI thread by QTest, and answers with one JSON line on stdout.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

os.environ.setdefault("DISPLAY", ":unused")  # a display as far as the app can tell; Qt itself is offscreen

from PySide6.QtCore import QObject, QPoint, Qt, Signal, Slot
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QComboBox,
    QLabel,
    QRadioButton,
    QTableWidget,
    QTabWidget,
    QWidget,
)

from app.__main__ import main

Answer = dict[str, Any]


class Hands(QObject):
    """Does on the UI thread what the reading thread hands over."""

    asked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.asked.connect(self._do, Qt.ConnectionType.QueuedConnection)

    @Slot(object)
    def _do(self, work: Callable[[], None]) -> None:
        work()


def _visible(name: str) -> QWidget | None:
    for window in QApplication.topLevelWidgets():
        for widget in [window, *window.findChildren(QWidget, name)]:
            if widget.objectName() == name and widget.isVisible():
                return widget
    return None


def _texts() -> list[str]:
    """Return what can be read: labels, and the accessible names of what is painted."""
    widgets = [widget for window in QApplication.topLevelWidgets() for widget in window.findChildren(QWidget)]
    seen = [widget for widget in widgets if widget.isVisible()]
    labels = [widget.text() for widget in seen if isinstance(widget, QLabel)]
    tables = [widget for widget in seen if isinstance(widget, QTableWidget)]
    places = [
        (table, row, column)
        for table in tables
        for row in range(table.rowCount())
        for column in range(table.columnCount())
    ]
    cells = [item.text() for table, row, column in places if (item := table.item(row, column)) is not None]
    return [text for text in (*labels, *cells, *(widget.accessibleName() for widget in seen)) if text]


def _choose(widget: QWidget, text: str) -> bool:
    """Go to an entry by the keyboard, as a user without a mouse does."""
    if isinstance(widget, QComboBox):
        found = [row for row in range(widget.count()) if text in widget.itemText(row)]
        current = widget.currentIndex()
    elif isinstance(widget, QAbstractItemView):
        model = widget.model()
        rows = [model.index(row, 0) for row in range(model.rowCount())]
        found = [index.row() for index in rows if text in str(index.data(Qt.ItemDataRole.DisplayRole))]
        current = widget.currentIndex().row()
    else:
        return False
    if not found:
        return False
    widget.setFocus()
    for _ in range(abs(found[0] - current)):
        QTest.keyClick(widget, Qt.Key.Key_Down if found[0] > current else Qt.Key.Key_Up)
    return True


def _obey(command: Answer) -> Answer:
    if command["do"] == "texts":
        return {"texts": _texts()}
    if command["do"] == "grab":
        next(window for window in QApplication.topLevelWidgets() if window.isVisible()).grab().save(command["path"])
        return {}
    widget = _visible(command["name"])
    if widget is None or command["do"] == "look":
        return {"found": widget is not None, "enabled": widget is not None and widget.isEnabled()}
    if command["do"] == "choose":
        return {"found": _choose(widget, command["text"])}
    if command["do"] == "click":
        # A box or a radio button may be wider than what can be hit of it.
        is_marked = isinstance(widget, (QCheckBox, QRadioButton))
        QTest.mouseClick(
            widget, Qt.MouseButton.LeftButton, pos=QPoint(8, widget.height() // 2) if is_marked else QPoint()
        )
    elif command["do"] == "tab" and isinstance(widget, QTabWidget):
        bar = widget.tabBar()
        index = next(i for i in range(bar.count()) if bar.tabText(i) == command["title"])
        QTest.mouseClick(bar, Qt.MouseButton.LeftButton, pos=bar.tabRect(index).center())
    elif command["do"] == "type":
        widget.setFocus()
        QTest.keyClick(widget, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        for number, line in enumerate(command["text"].split("\n")):
            if number:
                QTest.keyClick(widget, Qt.Key.Key_Return)
            QTest.keyClicks(widget, line)
        QTest.keyClick(widget, Qt.Key.Key_Tab)
    return {"found": True}


def _serve(hands: Hands) -> None:
    answers: queue.Queue[Answer] = queue.Queue()
    for line in sys.stdin:
        command = json.loads(line)
        hands.asked.emit(lambda command=command: answers.put(_obey(command)))
        print(json.dumps(answers.get()), flush=True)


def _start_serving() -> None:
    """Make the hands live on the UI thread once there is an application, then serve."""
    while (application := QApplication.instance()) is None:
        threading.Event().wait(0.01)
    hands = Hands()
    hands.moveToThread(application.thread())
    _serve(hands)


if __name__ == "__main__":
    threading.Thread(target=_start_serving, daemon=True).start()
    sys.exit(main([]))
