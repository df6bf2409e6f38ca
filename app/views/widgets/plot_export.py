"""Pictures of a chart as it stands: PNG at twice the screen's resolution, SVG as vectors."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPixmap
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

from app.controllers.notices import notify
from core.contracts.notices import Severity

_PNG_SCALE = 2.0


def save_picture(widget: QWidget, path: Path, form: str) -> None:
    """Write a widget as ``png`` or ``svg``; a failure to write becomes a notice. UI thread."""
    is_saved = _save_svg(widget, path) if form == "svg" else _save_png(widget, path)
    if is_saved:
        notify(Severity.SUCCESS, f"Saved {path.name}.", f"It is in {path.parent}.")
    else:
        notify(
            Severity.ERROR,
            f"{path.name} could not be written.",
            f"Check that {path.parent} exists and may be written to.",
        )


def _save_png(widget: QWidget, path: Path) -> bool:
    picture = QPixmap(widget.size() * _PNG_SCALE)
    picture.setDevicePixelRatio(_PNG_SCALE)
    picture.fill(Qt.GlobalColor.transparent)
    widget.render(picture)
    return picture.save(str(path), "PNG")


def _save_svg(widget: QWidget, path: Path) -> bool:
    generator = QSvgGenerator()
    generator.setFileName(str(path))
    generator.setSize(QSize(widget.width(), widget.height()))
    generator.setViewBox(QRect(0, 0, widget.width(), widget.height()))
    generator.setTitle(widget.accessibleName())
    painter = QPainter()
    if not painter.begin(generator):
        return False
    try:
        widget.render(painter, QPoint())
    finally:
        # A painter that outlives its device takes the program down.
        painter.end()
    return path.is_file()
