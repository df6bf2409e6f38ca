"""Streams curves into the live charts and into plain pyqtgraph, in turns, and prints one JSON line.

``python -m tests.bench.bench_live_plot --curves 32 --points 1000000 --seconds 10``

Ours: 20 updates a second of new points into a ``CurveBoard`` that already holds the points, all curves in one chart.
Peer: ``PlotCurveItem.setData`` with all points of all curves at each update, as pyqtgraph's own examples do; at fewer
points where a frame of it takes seconds (``--peer-points``), and said so. A stall is the time between two turns of the
event loop: in wall seconds (what a user feels; includes the load of others) and in CPU seconds of the UI thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEventLoop, QTimer
from PySide6.QtWidgets import QApplication, QWidget

from app.viewmodels.curve_set import CurveSet
from app.views.theme import apply_theme
from app.views.widgets.curve_board import CurveBoard
from core.contracts.ids import RunId
from core.contracts.runs import Curve, RunSummary, RunUpdate
from core.contracts.states import RunState

UPDATE_MS = 50
NEW_POINTS = 50
START = 1_790_000_000.0
SUMMARY = RunSummary(run_id=RunId("20261124-061203-bench-000000"), name="b", kind="train.image", state=RunState.RUNNING)


class LoopWatch:
    """The longest time between two turns of the event loop, in wall and in CPU seconds."""

    def __init__(self) -> None:
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []
        self._last = (time.perf_counter(), time.thread_time())
        self._timer = QTimer(interval=1)
        self._timer.timeout.connect(self._on_tick)
        self._timer.start()

    def _on_tick(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        self.wall_s.append(now[0] - self._last[0])
        self.cpu_s.append(now[1] - self._last[1])
        self._last = now

    def stop(self) -> None:
        self._timer.stop()


def run_loop(seconds: float, update: Callable[[int], None]) -> dict[str, float]:
    """Call ``update`` 20 times a second and measure the loop."""
    loop, count = QEventLoop(), 0

    def on_timer() -> None:
        nonlocal count
        update(count)
        count += 1

    timer = QTimer(interval=UPDATE_MS)
    timer.timeout.connect(on_timer)
    watch = LoopWatch()
    began, cpu = time.perf_counter(), time.process_time()
    timer.start()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()
    timer.stop()
    watch.stop()
    wall_s = time.perf_counter() - began
    return {
        "updates_per_s": round(count / wall_s, 1),
        "worst_stall_cpu_ms": round(max(watch.cpu_s) * 1e3, 1),
        "worst_stall_wall_ms": round(max(watch.wall_s) * 1e3, 1),
        "p99_stall_cpu_ms": round(float(np.percentile(watch.cpu_s, 99)) * 1e3, 1),
        "cpu_percent": round(100 * (time.process_time() - cpu) / wall_s, 1),
    }


def pieces(curves: int, points: int, first: int) -> dict[str, Curve]:
    rng = np.random.default_rng(first)
    step = np.arange(first, first + points, dtype=np.int64)
    keys = [f"layer{n}/norm" for n in range(curves)]
    return {
        key: Curve(key=key, step=step, ts=START + step * 0.01, value=n + rng.normal(size=points), total=points)
        for n, key in enumerate(keys)
    }


def settle(widget: QWidget, ms: int = 1500) -> None:
    loop = QEventLoop(widget)
    QTimer.singleShot(ms, loop.quit)
    loop.exec()


def ours(curves: int, points: int, seconds: float) -> dict[str, float]:
    board = CurveBoard()
    board.resize(1280, 720)
    board.show()
    stored = pieces(curves, points, 0)
    held = CurveSet()
    held.declare(stored, START)
    for curve in stored.values():
        held.load(curve)
    board.set_curves(held)
    settle(board)
    news = [pieces(curves, NEW_POINTS, points + n * NEW_POINTS) for n in range(int(seconds * 25))]

    def update(n: int) -> None:
        board.curves_changed(held.apply(RunUpdate(summary=SUMMARY, points=news[min(n, len(news) - 1)])))

    measured = run_loop(seconds, update)
    board.close()
    return measured


def peer(curves: int, points: int, seconds: float) -> dict[str, float]:
    widget = pg.PlotWidget()
    widget.resize(1280, 720)
    stored = list(pieces(curves, points, 0).values())
    x = stored[0].step.astype(np.float64)
    ys = [curve.value.copy() for curve in stored]
    items = [widget.plot(x, y, pen=pg.mkPen(pg.intColor(n))) for n, y in enumerate(ys)]
    widget.show()
    settle(widget)

    def update(n: int) -> None:
        for y, item in zip(ys, items, strict=True):
            y[:-NEW_POINTS] = y[NEW_POINTS:]
            item.setData(x, y)
        widget.setXRange(n * NEW_POINTS, n * NEW_POINTS + points, padding=0)

    measured = run_loop(seconds, update)
    widget.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=32)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--peer-points", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    app = QApplication([])
    apply_theme(app, "light")
    result = {
        "bench": "live_plot",
        "curves": asked.curves,
        "new_points_per_update": NEW_POINTS,
        "ours": {"points_per_curve": asked.points, **ours(asked.curves, asked.points, asked.seconds)},
        "pyqtgraph_setData": {
            "points_per_curve": asked.peer_points,
            **peer(asked.curves, asked.peer_points, asked.seconds),
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
