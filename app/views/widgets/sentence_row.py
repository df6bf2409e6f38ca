"""A row of an icon, a sentence, and its remedy in small text below: findings and problems look alike everywhere."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app.views.icons import icon_pixmap
from app.views.theme import SPACE, set_kind

_ICON_PX = 18


def sentence_row(icon_name: str, colour: str, sentence: str, remedy: str, ratio: float) -> QWidget:
    """Return the row; texts can be selected and are shown as they are.

    Args:
        icon_name: As for ``icon_pixmap``.
        colour: Name of a colour of the theme.
        sentence: What is the matter.
        remedy: What to do about it; may be empty.
        ratio: Device pixels per pixel.
    """
    box = QWidget()
    row = QHBoxLayout(box)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(SPACE.s + 2)
    picture = QLabel()
    picture.setPixmap(icon_pixmap(icon_name, _ICON_PX, colour, ratio))
    words = QVBoxLayout()
    words.setSpacing(2)
    for text, kind in ((sentence, "body"), (remedy, "caption")):
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
