"""Parallel coordinates: a line per trial across one axis per parameter, the metric last; good trials in strong colours.

Drawn by hand: several hundred lines are painted once into a picture that is kept until data, size, theme or filters
change; pointing at a trial paints one line over it. Dragging along an axis keeps the trials in that range; a click on the
axis takes the range away. With the keyboard: left and right choose an axis, Shift+up and Shift+down narrow its range from
below and above, up and down step through the trials from the best on, Enter opens one, Escape takes all ranges away.
"""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
    QResizeEvent,
)
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.viewmodels.sweep_axes import Floats, SweepPicture
from app.views.theme import SPACE, theme, theme_host
from app.views.widgets.parallel_axes import AxisFrame, line_pen, paint_axis, scale_colour
from app.views.widgets.plot_tooltip import PlotTooltip, TooltipRow

_HEIGHT = 310
_TOP, _BOTTOM, _SIDE = 40, 24, 64
_GRIP = 14.0
_REACH = 9.0
_CLICK = 4.0
_NARROW = 0.1
_HALO = 5
_MANY = 80

Brushes = dict[int, tuple[float, float]]


class ParallelPlot(QWidget):
    """The lines. Thread: UI.

    Signals:
        kept: Frozen set of the numbers of the trials in the chosen ranges, None when no range is chosen.
        chosen: Number of the trial that was clicked or stepped to (int).
        opened: Number of the trial that is to be opened (int).
    """

    kept = Signal(object)
    chosen = Signal(int)
    opened = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("parallel_plot")
        self.setAccessibleName("Trials on parallel axes")
        self.setAccessibleDescription(
            "Left and right choose an axis, Shift with up and down narrow its range, up and down step through the trials, "
            "Enter opens one, Escape takes all ranges away."
        )
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._picture = SweepPicture((), (), np.empty(0))
        self._best: int | None = None
        self._brushes: Brushes = {}
        self._axis = 0
        self._pointed: int | None = None
        self._marked: int | None = None
        self._drag: tuple[int, float] | None = None
        self._lines: QPixmap | None = None
        self._tooltip = PlotTooltip(self)
        theme_host().changed.connect(self._redraw)

    # -- content ---------------------------------------------------------------------------------------------------

    @property
    def brushes(self) -> Brushes:
        """The chosen ranges by number of the axis, as positions from 0 to 1."""
        return dict(self._brushes)

    def show_picture(self, picture: SweepPicture, best: int | None) -> None:
        """Show a sweep; the chosen ranges stay while its axes do."""
        if [axis.path for axis in picture.axes] != [axis.path for axis in self._picture.axes]:
            self._brushes, self._axis, self._marked = {}, 0, None
        self._picture, self._best, self._pointed = picture, best, None
        self._tooltip.hide()
        self._redraw()
        self._tell()

    @property
    def marked(self) -> int | None:
        """Number of the trial that is chosen."""
        return None if self._marked is None else self._picture.numbers[self._marked]

    def choose(self, number: int | None) -> None:
        """Mark a trial, as chosen elsewhere."""
        row = None if number is None else self._row_of(number)
        if row != self._marked:
            self._marked = row
            self.update()

    def set_brush(self, axis: int, span: tuple[float, float] | None) -> None:
        """Choose a range of an axis, or take it away."""
        if span is None:
            self._brushes.pop(axis, None)
        else:
            self._brushes[axis] = (max(min(span), 0.0), min(max(span), 1.0))
        self._redraw()
        self._tell()

    def clear_brushes(self) -> None:
        """Take all ranges away."""
        self._brushes = {}
        self._redraw()
        self._tell()

    def _tell(self) -> None:
        if not self._brushes:
            self.kept.emit(None)
            return
        kept = self._picture.kept(self._brushes)
        self.kept.emit(frozenset(n for n, is_in in zip(self._picture.numbers, kept, strict=True) if is_in))

    def _row_of(self, number: int) -> int | None:
        return self._picture.numbers.index(number) if number in self._picture.numbers else None

    # -- geometry --------------------------------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        """Return the wanted size."""
        return QSize(640, _HEIGHT)

    def _area(self) -> QRectF:
        return QRectF(_SIDE, _TOP, max(self.width() - 2 * _SIDE, 1), max(self.height() - _TOP - _BOTTOM, 1))

    def axis_x(self, axis: int) -> float:
        """Return where an axis stands, in pixels."""
        area, count = self._area(), len(self._picture.axes)
        return area.center().x() if count < 2 else area.left() + area.width() * axis / (count - 1)

    def axis_y(self, position: float) -> float:
        """Return where a position of an axis is, in pixels."""
        return self._area().bottom() - position * self._area().height()

    def _position(self, y: float) -> float:
        return min(max((self._area().bottom() - y) / self._area().height(), 0.0), 1.0)

    def _axis_at(self, at: QPointF) -> int | None:
        near = [axis for axis in range(len(self._picture.axes)) if abs(self.axis_x(axis) - at.x()) <= _GRIP]
        return near[0] if near and _TOP - _GRIP <= at.y() <= self._area().bottom() + _GRIP else None

    def _heights(self) -> Floats:
        """Return the pixel heights of all lines, shape (trials, axes); NaN where a trial has no value."""
        area = self._area()
        positions = np.array([axis.positions for axis in self._picture.axes]).T
        return area.bottom() - positions * area.height()

    def _trial_at(self, at: QPointF) -> int | None:
        """Return the row of the line nearest to a point, None where none is near."""
        axes, area = self._picture.axes, self._area()
        if (
            not self._picture.numbers
            or len(axes) < 2
            or not area.adjusted(-_REACH, -_REACH, _REACH, _REACH).contains(at)
        ):
            return None
        pitch = area.width() / (len(axes) - 1)
        place = min(max((at.x() - area.left()) / pitch, 0.0), len(axes) - 1.0)
        left = min(int(place), len(axes) - 2)
        heights = self._heights()
        between = heights[:, left] + (heights[:, left + 1] - heights[:, left]) * (place - left)
        # The distance to a line is shorter than the vertical one where it is steep.
        slope = (heights[:, left + 1] - heights[:, left]) / pitch
        away = np.abs(between - at.y()) / np.sqrt(1 + slope**2)
        away[~self._picture.kept(self._brushes)] = np.nan
        if not np.isfinite(away).any():
            return None
        nearest = int(np.nanargmin(away))
        return nearest if away[nearest] <= _REACH else None

    # -- painting --------------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        self._lines = None
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Draw anew."""
        super().resizeEvent(event)
        self._lines = None

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the kept picture of the lines, then what moves: the trial that is pointed at, and the axes."""
        if self._lines is None:
            self._lines = self._painted_lines()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._lines)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        best = None if self._best is None else self._row_of(self._best)
        for row, colour, width in (
            (best, theme().success, 2.4),
            (self._marked, theme().warning, 2.4),
            (self._pointed, theme().text, 2.0),
        ):
            if row is not None and row < len(self._picture.numbers):
                self._paint_line(
                    painter, self._heights()[row], QPen(QColor(theme().plot_background), width + _HALO - 2)
                )
                self._paint_line(painter, self._heights()[row], QPen(QColor(colour), width))
        for number, axis in enumerate(self._picture.axes):
            paint_axis(painter, axis, self._frame(number))
        painter.end()

    def _painted_lines(self) -> QPixmap:
        ratio = self.devicePixelRatioF()
        pixmap = QPixmap(self.size() * ratio)
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(QColor(theme().plot_background))
        if not self._picture.numbers:
            return pixmap
        painter = QPainter(pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        heights, goodness = self._heights(), self._picture.goodness
        kept = self._picture.kept(self._brushes)
        # Those left out first, then from the worst to the best, so that the good ones lie on top.
        order = np.lexsort((np.nan_to_num(goodness, nan=-1.0), kept))
        count = int(kept.sum())
        # Many lines are drawn thin and let those below shine through; thin ones are also several times as fast.
        opacity = min(max(6.0 / math.sqrt(max(count, 1)), 0.3), 0.9)
        for row in order.tolist():
            painter.setOpacity(opacity if kept[row] else 0.08)
            self._paint_line(
                painter, heights[row], line_pen(float(goodness[row]), is_thin=count > _MANY or not kept[row])
            )
        painter.end()
        return pixmap

    def _paint_line(self, painter: QPainter, heights: Floats, pen: QPen) -> None:
        painter.setPen(pen)
        points = [QPointF(self.axis_x(n), float(y)) for n, y in enumerate(heights) if math.isfinite(y)]
        painter.drawPolyline(QPolygonF(points))

    def _frame(self, number: int) -> AxisFrame:
        area, x, last = self._area(), self.axis_x(number), len(self._picture.axes) - 1
        pitch = 2.0 * _SIDE if last < 1 else min(area.width() / last, 2.0 * _SIDE + 80)
        is_edge = number in (0, last)
        return AxisFrame(
            x=x,
            top=area.top(),
            bottom=area.bottom(),
            title_width=min(pitch - SPACE.s, 2 * x, 2 * (self.width() - x)),
            tick_width=_SIDE - SPACE.xs if is_edge else 120.0,
            is_last=number == last > 0,
            is_active=self.hasFocus() and number == self._axis,
            brush=self._brushes.get(number),
        )

    # -- mouse and keyboard ----------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin a range on an axis, or choose the trial that is pointed at."""
        if event.button() is not Qt.MouseButton.LeftButton:
            return
        axis = self._axis_at(event.position())
        if axis is not None:
            self._axis = axis
            self._drag = (axis, event.position().y())
            self.update()
            return
        row = self._trial_at(event.position())
        if row is not None:
            self._mark(row)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Draw a range, or show the trial under the pointer."""
        at = event.position()
        if self._drag is not None:
            axis, began = self._drag
            if abs(at.y() - began) > _CLICK:
                self.set_brush(axis, (self._position(began), self._position(at.y())))
            return
        on_axis = self._axis_at(at) is not None
        self.setCursor(Qt.CursorShape.SplitVCursor if on_axis else Qt.CursorShape.ArrowCursor)
        self._point(self._trial_at(at), at)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End a range; a click on an axis takes its range away."""
        if self._drag is None:
            return
        axis, began = self._drag
        self._drag = None
        if abs(event.position().y() - began) <= _CLICK:
            self.set_brush(axis, None)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Open the trial that is pointed at."""
        row = self._trial_at(event.position())
        if row is not None and self._axis_at(event.position()) is None:
            self.opened.emit(self._picture.numbers[row])

    def leaveEvent(self, event: object) -> None:
        """Point at nothing."""
        del event
        self._point(None, QPointF())

    def _point(self, row: int | None, at: QPointF) -> None:
        if row != self._pointed:
            self._pointed = row
            self.update()
        if row is None:
            self._tooltip.hide()
            return
        goodness = float(self._picture.goodness[row])
        colour = theme().text_faint if math.isnan(goodness) else scale_colour(goodness).name()
        rows = [
            TooltipRow(colour=colour, name=axis.title, value=axis.text_at(float(axis.positions[row])))
            for axis in self._picture.axes
            if math.isfinite(axis.positions[row])
        ]
        self._tooltip.show_at(at.toPoint(), f"Trial {self._picture.numbers[row]}", rows, 0, "")

    def _mark(self, row: int) -> None:
        self._marked = row
        self.update()
        self.chosen.emit(self._picture.numbers[row])

    def _step(self, by: int) -> None:
        """Go to the next better or worse trial of those kept."""
        kept = self._picture.kept(self._brushes)
        goodness = np.where(kept, self._picture.goodness, np.nan)
        order = [
            row for row in np.argsort(-np.nan_to_num(goodness, nan=-1.0), kind="stable") if np.isfinite(goodness[row])
        ]
        if not order:
            return
        place = order.index(self._marked) + by if self._marked in order else 0
        self._mark(int(order[min(max(place, 0), len(order) - 1)]))

    def _narrow(self, *, from_below: bool) -> None:
        low, high = self._brushes.get(self._axis, (0.0, 1.0))
        span = (low + _NARROW, high) if from_below else (low, high - _NARROW)
        if span[1] - span[0] > 1e-6:
            self.set_brush(self._axis, span)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Do with the keyboard what the mouse does; see the top of this module."""
        is_shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        key = event.key()
        if key in (Qt.Key.Key_Left, Qt.Key.Key_Right) and self._picture.axes:
            self._axis = (self._axis + (1 if key == Qt.Key.Key_Right else -1)) % len(self._picture.axes)
            self.update()
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down) and self._picture.axes:
            if is_shift:
                self._narrow(from_below=key == Qt.Key.Key_Up)
            else:
                self._step(-1 if key == Qt.Key.Key_Up else 1)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self._marked is not None:
            self.opened.emit(self._picture.numbers[self._marked])
        elif key == Qt.Key.Key_Escape and self._brushes:
            self.clear_brushes()
        else:
            super().keyPressEvent(event)
