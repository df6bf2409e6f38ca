"""Curves as the points of an inline SVG: numbers in, coordinates out; the template draws and colours them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on an axis: its place in the drawing and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """One line in a drawing of ``width`` by ``height`` units, inside a frame from (left, top) to (right, bottom)."""

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    points: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    last_x: float
    last_y: float


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round values (1, 2 or 5 times a power of ten apart) from within a range."""
    if high <= low:
        return [low]
    raw = (high - low) / max(count - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def accuracy_chart(epochs: Sequence[float], accuracies: Sequence[float]) -> LineChart | None:
    """Lay out accuracy (0 to 1) over epochs; None with fewer than two finite points."""
    pairs = [(x, y) for x, y in zip(epochs, accuracies, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if len(pairs) < 2:
        return None
    width, height, left, top, right, bottom = 720, 260, 56, 14, 704, 222
    x_low, x_high = pairs[0][0], pairs[-1][0]
    y_low = max(0.0, math.floor(min(y for _, y in pairs) * 20 - 0.2) / 20)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / max(x_high - x_low, 1e-12)
        up = (y - y_low) / max(1.0 - y_low, 1e-12)
        return round(left + across * (right - left), 1), round(bottom - up * (bottom - top), 1)

    placed = [place(x, y) for x, y in pairs]
    return LineChart(
        width=width,
        height=height,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        points=" ".join(f"{x},{y}" for x, y in placed),
        x_ticks=tuple(Tick(at=place(x, 1)[0], label=f"{x:g}") for x in nice_ticks(x_low, x_high, 8) if x == int(x)),
        y_ticks=tuple(Tick(at=place(x_low, y)[1], label=f"{100 * y:g} %") for y in nice_ticks(y_low, 1.0, 5)),
        last_x=placed[-1][0],
        last_y=placed[-1][1],
    )
