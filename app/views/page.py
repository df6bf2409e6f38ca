"""The frame that every page shares: a header row (title, sentence, actions) over a body.

A page is made once, on the first visit; ``activate`` and ``deactivate`` tell it when it is seen, so that timers and
followers of an unseen page cost nothing.
"""

from __future__ import annotations

from typing import ClassVar

from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from app.controllers.routes import Route
from app.views.theme import SPACE, set_kind


class Page(QWidget):
    """A page of the window.

    Attributes:
        title: Its name on the navigation rail and in the palette.
        icon_name: Its icon on the rail.
        body: Layout that subclasses fill.
        header: Layout of the header row; ``add_action`` appends to its right end.
    """

    title: ClassVar[str] = ""
    icon_name: ClassVar[str] = "file"
    subtitle: ClassVar[str] = ""

    def __init__(self, parent: QWidget | None = None, *, scrolls: bool = False) -> None:
        super().__init__(parent)
        self.setObjectName("page")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground, on=True)
        self.setAccessibleName(self.title)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, SPACE.l, 0, 0)
        outer.setSpacing(SPACE.m)
        self.header = self._build_header()
        outer.addLayout(self.header)
        self.body = QVBoxLayout()
        self.body.setSpacing(SPACE.m)
        self.body.setContentsMargins(SPACE.xl, 0, SPACE.xl, SPACE.m)
        if scrolls:
            outer.addWidget(scroll_area(self.body, SPACE.xl), 1)
        else:
            outer.addLayout(self.body, 1)

    def add_action(self, widget: QWidget) -> None:
        """Add a button to the right end of the header."""
        self.header.addWidget(widget, 0, Qt.AlignmentFlag.AlignVCenter)

    def set_heading(self, title: str, subtitle: str = "") -> None:
        """Change the words of the header."""
        self._title.setText(title)
        self._subtitle.setText(subtitle)
        self._subtitle.setVisible(bool(subtitle))

    def activate(self) -> None:
        """Become visible: start timers, fetch what is stale. UI thread, returns at once."""

    def deactivate(self) -> None:
        """Become hidden: stop timers and followers."""

    def open(self, route: Route) -> None:
        """Show what a route asks for, after ``activate``."""
        del route

    def _build_header(self) -> QHBoxLayout:
        header = QHBoxLayout()
        header.setSpacing(SPACE.s)
        header.setContentsMargins(SPACE.xl, 0, SPACE.xl, 0)
        words = QVBoxLayout()
        words.setSpacing(2)
        self._title = QLabel(self.title, self)
        set_kind(self._title, "h1")
        self._title.setTextFormat(Qt.TextFormat.PlainText)
        # With a parent from the start: shown without one it would be a window of its own for a moment.
        self._subtitle = QLabel(self.subtitle, self)
        set_kind(self._subtitle, "muted")
        self._subtitle.setTextFormat(Qt.TextFormat.PlainText)
        self._subtitle.setVisible(bool(self.subtitle))
        words.addWidget(self._title)
        words.addWidget(self._subtitle)
        header.addLayout(words, 1)
        return header


class _ScrollBody(QWidget):
    """Is never squeezed below the height that its wrapped texts need, which a scroll area alone does not see to."""

    def __init__(self, layout: QVBoxLayout) -> None:
        super().__init__()
        self.setObjectName("scroll_body")
        self.setLayout(layout)
        self._layout = layout

    def event(self, event: QEvent) -> bool:
        """Take the height anew when the contents or the width changed."""
        handled = super().event(event)
        if event.type() in {QEvent.Type.LayoutRequest, QEvent.Type.Resize}:
            wanted = self._layout.totalHeightForWidth(self.width()) if self._layout.hasHeightForWidth() else 0
            self.setMinimumHeight(max(wanted, self._layout.totalMinimumSize().height()))
        return handled


def scroll_area(body: QVBoxLayout, margin: int) -> QScrollArea:
    """Return an area that scrolls a body up and down; ``margin``: pixels at its right, out of which the bar takes its room."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.setWidget(_ScrollBody(body))
    bar = area.verticalScrollBar()

    def keep_right_edge(_low: int, high: int) -> None:
        # The bar takes its room out of the margin, so that the contents end where the header ends.
        right = max(margin - bar.sizeHint().width(), SPACE.xs) if high > 0 else margin
        left = margin if margin == SPACE.xl else 0
        body.setContentsMargins(left, body.contentsMargins().top(), right, SPACE.l)

    bar.rangeChanged.connect(keep_right_edge)
    keep_right_edge(0, 0)
    return area
