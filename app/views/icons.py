"""Icons: our own line drawings (``resources/icons``), tinted to the theme when painted.

``icon("play")`` follows the theme by itself; a colour is a token's name such as ``accent`` or ``danger``, or ``#RRGGBB``.
An unknown name gives the plain file icon, so that a third party's kind never breaks a page.
"""

from __future__ import annotations

from functools import lru_cache

from PySide6.QtCore import QByteArray, QPoint, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QIconEngine, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from app.viewmodels.resource_files import icon_file
from app.views.theme import theme

_FALLBACK = "file"


def icon(name: str, colour: str | None = None) -> QIcon:
    """Return the icon; it re-tints itself when the theme changes. UI thread."""
    return QIcon(_TintedEngine(name, colour))


def icon_pixmap(name: str, size: int, colour: str | None = None, ratio: float = 1.0) -> QPixmap:
    """Return the icon as a picture of ``size`` device-independent pixels, in the theme in force now."""
    pixmap = QPixmap(QSize(round(size * ratio), round(size * ratio)))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    _renderer(name, _resolve(colour)).render(painter, QRectF(pixmap.rect()))
    painter.end()
    pixmap.setDevicePixelRatio(ratio)
    return pixmap


def app_icon() -> QIcon:
    """Return the application's own icon."""
    return QIcon(str(icon_file("pilothouse")))


def _resolve(colour: str | None) -> str:
    if colour and colour.startswith("#"):
        return colour
    return str(getattr(theme(), colour or "text_muted"))


@lru_cache(maxsize=512)
def _renderer(name: str, colour: str) -> QSvgRenderer:
    path = icon_file(name)
    if not path.is_file():
        path = icon_file(_FALLBACK)
    drawing = path.read_text(encoding="utf-8").replace("currentColor", colour)
    return QSvgRenderer(QByteArray(drawing.encode()))


class _TintedEngine(QIconEngine):
    def __init__(self, name: str, colour: str | None) -> None:
        super().__init__()
        self._name = name
        self._colour = colour

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        colour = self._colour
        if mode is QIcon.Mode.Disabled:
            colour = "text_faint"
        elif colour is None and state is QIcon.State.On:
            colour = "accent"
        side = min(rect.width(), rect.height())
        square = QRectF(rect.center().x() + 0.5 - side / 2, rect.center().y() + 0.5 - side / 2, side, side)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        _renderer(self._name, _resolve(colour)).render(painter, square)

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        pixmap = QPixmap(size)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        self.paint(painter, QRect(QPoint(0, 0), size), mode, state)
        painter.end()
        return pixmap

    def clone(self) -> QIconEngine:
        return _TintedEngine(self._name, self._colour)
