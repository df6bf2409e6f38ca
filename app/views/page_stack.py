"""The pages of the window: made on the first visit, told when they are seen, their modules imported off the UI thread.

A page that charts pulls in pyqtgraph (half a second of processor time); importing it on a thread of the pool keeps the
window alive meanwhile.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QStackedWidget, QWidget

from app.controllers.ops import Op
from app.controllers.routes import Route
from app.views.page import Page
from app.views.widgets.empty_state import EmptyState
from core.contracts.notices import Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSpec:
    """A page that can be shown.

    Attributes:
        key: Its key in routes.
        title: Its name on the rail.
        icon: Name of its icon.
        module: Module to import before ``build`` is called.
        build: Makes the page. UI thread, once.
        shortcut: Such as ``Ctrl+1``; empty for none.
        rail: Key of the rail's button to mark; its own unless the page hangs under another.
        at_foot: Stands at the foot of the rail.
    """

    key: str
    title: str
    icon: str
    module: str
    build: Callable[[], Page]
    shortcut: str = ""
    rail: str = ""
    at_foot: bool = False


class PageStack(QStackedWidget):
    """Shows one page.

    Signals:
        shown: Key of the page shown now.
    """

    shown = Signal(str)

    def __init__(self, specs: tuple[PageSpec, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._specs = {spec.key: spec for spec in specs}
        self._pages: dict[str, Page] = {}
        self._importing: set[str] = set()
        self._wanted: Route | None = None
        self._current: str = ""
        self._busy = EmptyState("clock", "Opening", "One moment.")
        self.addWidget(self._busy)

    def go(self, route: Route) -> None:
        """Show a page; one that is not made yet shows a busy state until its module has been imported."""
        if route.page not in self._specs:
            raise KeyError(route.page)
        self._wanted = route
        spec = self._specs[route.page]
        if spec.key in self._pages or (spec.module in sys.modules and spec.module not in self._importing):
            self._show(route)
            return
        self.leave()
        self._busy.set_content(spec.icon, f"Opening {spec.title}", "One moment.")
        self.setCurrentWidget(self._busy)
        if spec.module not in self._importing:
            self._importing.add(spec.module)
            Op(lambda: importlib.import_module(spec.module)).succeeded(self._on_imported).failed(
                self.show_problem
            ).start()

    def current_key(self) -> str:
        """Return the key of the page shown."""
        return self._current

    def page(self, key: str) -> Page | None:
        """Return a page that has been made."""
        return self._pages.get(key)

    def show_problem(self, notice: Notice) -> None:
        """Show a problem in the place of a page."""
        self.leave()
        self._busy.set_content("error", notice.message, notice.hint)
        self.setCurrentWidget(self._busy)

    def _on_imported(self, module: ModuleType) -> None:
        self._importing.discard(module.__name__)
        if self._wanted is not None and self._specs[self._wanted.page].module == module.__name__:
            self._show(self._wanted)

    def _show(self, route: Route) -> None:
        page = self._pages.get(route.page)
        if page is None:
            page = self._specs[route.page].build()
            self._pages[route.page] = page
            self.addWidget(page)
        if self._current != route.page:
            self.leave()
            self._current = route.page
            self.setCurrentWidget(page)
            page.activate()
        page.open(route)
        self.shown.emit(route.page)

    def leave(self) -> None:
        """Tell the page shown that it is no longer seen."""
        if self._current:
            self._pages[self._current].deactivate()
            self._current = ""
