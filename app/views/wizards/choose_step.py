"""First step of the wizard: what to do, as cards in groups."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from app.views.theme import SPACE, set_kind
from app.views.widgets.kind_card import KindCard
from core.contracts.forms import RunKindInfo

_GROUPS = (
    ("pipeline", "Start to finish"),
    ("train", "Train a model"),
    ("compress", "Make a model smaller and faster"),
    ("benchmark", "Measure a model"),
)
_COLUMNS = 2


class ChooseStep(QScrollArea):
    """Cards of all kinds of run.

    Signals:
        kind_chosen: Name of the kind (str).
        example_chosen: File name of an example (str).
    """

    kind_chosen = Signal(object)
    example_chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.cards: dict[str, KindCard] = {}
        self._group = ""

    def set_kinds(self, kinds: tuple[RunKindInfo, ...]) -> None:
        """Show a card for each kind, in its group."""
        inner = QWidget()
        inner.setObjectName("scroll_body")
        stack = QVBoxLayout(inner)
        stack.setContentsMargins(0, 0, SPACE.s, SPACE.m)
        stack.setSpacing(SPACE.s)
        self.cards = {}
        titles = dict(_GROUPS)
        others = [info.group for info in kinds if info.group not in titles]
        for group in (*titles, *dict.fromkeys(others)):
            members = [info for info in kinds if info.group == group]
            if members:
                self._add_group(stack, titles.get(group, group.capitalize()), members)
        stack.addStretch(1)
        self.setWidget(inner)
        if self._group:
            self.show_group(self._group)

    def show_group(self, group: str) -> None:
        """Scroll to a group and put the focus on its first card, now or once the kinds are there."""
        self._group = group
        card = next((card for card in self.cards.values() if card.info.group == group), None)
        if card is not None:
            card.setFocus(Qt.FocusReason.OtherFocusReason)
            # Cards have their place only after the layout ran.
            QTimer.singleShot(0, card, lambda: self.ensureWidgetVisible(card, 0, 80))

    def mark(self, kind: str) -> None:
        """Show which kind was chosen last."""
        for name, card in self.cards.items():
            card.setProperty("chosen", name == kind)
            card.style().unpolish(card)
            card.style().polish(card)

    def focus_first(self) -> None:
        """Put the focus on the chosen card, else on the first."""
        chosen = [card for card in self.cards.values() if card.property("chosen")]
        for card in (*chosen, *self.cards.values()):
            card.setFocus(Qt.FocusReason.TabFocusReason)
            return

    def _add_group(self, stack: QVBoxLayout, title: str, members: list[RunKindInfo]) -> None:
        heading = QLabel(title)
        set_kind(heading, "h3")
        heading.setContentsMargins(2, SPACE.s, 0, 0)
        stack.addWidget(heading)
        grid = QGridLayout()
        grid.setSpacing(SPACE.s)
        for n, info in enumerate(members):
            card = KindCard(info)
            card.clicked.connect(lambda kind=info.kind: self.kind_chosen.emit(kind))
            card.example_chosen.connect(self.example_chosen)
            self.cards[info.kind] = card
            grid.addWidget(card, n // _COLUMNS, n % _COLUMNS)
        for column in range(_COLUMNS):
            grid.setColumnStretch(column, 1)
        stack.addLayout(grid)
