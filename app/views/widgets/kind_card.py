"""A kind of run as a card to choose: icon, title, a sentence, and the shipped examples that fill its form."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.flow_layout import FlowLayout
from core.contracts.forms import RunKindInfo

_ICON_SIZE = 28


class KindCard(Card):
    """A card of the wizard's first step; called ``card_<kind>``, its examples ``example_<file name>``.

    Signals:
        example_chosen: File name of an example (str).
    """

    example_chosen = Signal(object)

    def __init__(self, info: RunKindInfo, parent: QWidget | None = None) -> None:
        super().__init__(clickable=True, parent=parent)
        self.info = info
        self.setObjectName(f"card_{info.kind}")
        self.setAccessibleName(info.title)
        self.setAccessibleDescription(info.summary)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.body.addLayout(self._build_words())
        if info.examples:
            self.body.addStretch(1)
            self.body.addWidget(self._build_examples())

    def _build_words(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(SPACE.m)
        picture = QLabel()
        picture.setPixmap(icon(self.info.icon, "accent").pixmap(_ICON_SIZE, _ICON_SIZE))
        words = QVBoxLayout()
        words.setSpacing(2)
        title = QLabel(self.info.title)
        set_kind(title, "h2")
        summary = QLabel(self.info.summary)
        set_kind(summary, "muted")
        summary.setWordWrap(True)
        for label in (title, summary):
            label.setTextFormat(Qt.TextFormat.PlainText)
            words.addWidget(label)
        row.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        return row

    def _build_examples(self) -> QWidget:
        holder = QWidget()
        flow = FlowLayout(holder, spacing=SPACE.xs)
        for name in self.info.examples:
            button = QPushButton(Path(name).stem.replace("-", " ").replace("_", " "))
            button.setObjectName(f"example_{name}")
            button.setIcon(icon("file"))
            button.setToolTip(f"Fill the form from the example {name}")
            button.setAccessibleName(f"Example {name}")
            set_role(button, "ghost")
            button.clicked.connect(lambda _=False, name=name: self.example_chosen.emit(name))
            flow.addWidget(button)
        return holder
