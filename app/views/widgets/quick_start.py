"""The quick start, offered on an empty history: what it does in four steps, and the button that starts it."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.views.icons import icon, icon_pixmap
from app.views.theme import SPACE, set_kind, set_role, theme_host
from app.views.widgets.card import Card

_STEPS = (
    ("train", "Train", "a small image model on sample data"),
    ("compress", "Compress", "it to 8 bits, with an accuracy gate"),
    ("benchmark", "Benchmark", "both on this computer's backends"),
    ("table", "Report", "accuracy, size and latency side by side"),
)


class QuickStartHero(Card):
    """The large card on an empty Home.

    Signals:
        start_wanted: Start the quick start.
    """

    start_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(surface="hero", parent=parent)
        self.setObjectName("quick_start")
        self.body.setContentsMargins(SPACE.s, SPACE.s, SPACE.s, SPACE.s)
        self.body.setSpacing(SPACE.m)
        heading = QLabel("See the whole way in a few minutes")
        set_kind(heading, "h1")
        sentence = QLabel(
            "The quick start takes a model from raw data to a compressed, measured model on this computer. It needs no "
            "network, no GPU and no account, and every step stays in your history."
        )
        sentence.setWordWrap(True)
        set_kind(sentence, "muted")
        self.body.addWidget(heading)
        self.body.addWidget(sentence)
        self._pictures: list[tuple[QLabel, str]] = []
        steps = QHBoxLayout()
        steps.setSpacing(SPACE.l)
        for icon_name, verb, rest in _STEPS:
            steps.addLayout(self._step(icon_name, verb, rest), 1)
        self.body.addLayout(steps)
        self.button = QPushButton("Run the quick start")
        self.button.setObjectName("run_quick_start")
        self.button.setIcon(icon("rocket", "on_accent"))
        self.button.setIconSize(QSize(18, 18))
        set_role(self.button, "primary")
        self.button.clicked.connect(self.start_wanted)
        self.body.addWidget(self.button, 0, Qt.AlignmentFlag.AlignLeft)
        theme_host().changed.connect(self._draw)
        self._draw()

    def _step(self, icon_name: str, verb: str, rest: str) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(SPACE.s + 2)
        picture = QLabel()
        picture.setFixedSize(28, 28)
        self._pictures.append((picture, icon_name))
        words = QVBoxLayout()
        words.setSpacing(1)
        head, tail = QLabel(verb), QLabel(rest)
        set_kind(head, "h3")
        set_kind(tail, "caption")
        tail.setWordWrap(True)
        words.addWidget(head)
        words.addWidget(tail, 1, Qt.AlignmentFlag.AlignTop)
        row.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        return row

    def _draw(self) -> None:
        for label, icon_name in self._pictures:
            label.setPixmap(icon_pixmap(icon_name, 26, "accent", self.devicePixelRatioF()))
