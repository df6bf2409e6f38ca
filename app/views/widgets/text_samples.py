"""Texts that a model generated, readable: what is known of each above it, line breaks kept, the newest first."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QVBoxLayout, QWidget

from app.viewmodels.training_facts import TextSample
from app.views.theme import SPACE, mono_font, set_kind, set_role, set_surface

_FIRST = 3
_MAX_CHARS = 4000


class TextSamples(QWidget):
    """The newest few; the button shows the earlier ones."""

    def __init__(self, samples: Sequence[TextSample], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.s)
        for sample in samples[:_FIRST]:
            column.addWidget(_sample(sample))
        earlier = samples[_FIRST:]
        if earlier:
            more = QPushButton(f"Show {len(earlier)} earlier")
            set_role(more, "ghost")
            more.clicked.connect(lambda: self._show_all(column, more, earlier))
            column.addWidget(more, 0, Qt.AlignmentFlag.AlignLeft)

    @staticmethod
    def _show_all(column: QVBoxLayout, more: QPushButton, earlier: Sequence[TextSample]) -> None:
        more.hide()
        for sample in earlier:
            column.addWidget(_sample(sample))


def _sample(sample: TextSample) -> QWidget:
    holder = QWidget()
    column = QVBoxLayout(holder)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(SPACE.xs)
    if sample.about:
        about = QLabel(sample.about)
        about.setTextFormat(Qt.TextFormat.PlainText)
        about.setWordWrap(True)
        set_kind(about, "caption")
        column.addWidget(about)
    frame = QFrame()
    set_surface(frame, "sunken")
    inner = QVBoxLayout(frame)
    inner.setContentsMargins(SPACE.m, SPACE.s, SPACE.m, SPACE.s)
    cut = len(sample.text) > _MAX_CHARS
    text = QLabel(f"{sample.text[:_MAX_CHARS]}…" if cut else sample.text)
    text.setTextFormat(Qt.TextFormat.PlainText)
    text.setWordWrap(True)
    text.setFont(mono_font(12))
    text.setTextInteractionFlags(
        Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
    )
    text.setAccessibleName(f"Generated text, {sample.about}")
    inner.addWidget(text)
    column.addWidget(frame)
    return holder
