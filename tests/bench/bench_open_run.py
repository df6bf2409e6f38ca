"""Opens a stored run of 10 curves with a million points each on the run page, and prints one JSON line.

``python -m tests.bench.bench_open_run --points 1000000 --opens 5``

Measured from the route to the run (what a click sends) until the page shows the run with its head, and until the first
charts are drawn with all their curves; each time on the same window, with another run opened in between. Peer in the
same run: TensorBoard's ``EventAccumulator`` loading one scalar of the same length is orders of magnitude slower and is
measured once at ``--peer-points``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from PySide6.QtCore import QEventLoop, QTimer
from PySide6.QtWidgets import QApplication

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import RUN, Route
from app.controllers.services import Services
from app.views.run_detail_page import RunDetailPage
from app.views.theme import apply_theme
from core.contracts.ids import RunId
from core.contracts.settings import Settings
from tests.helpers.builders import build_run, series

NUM_CURVES = 10


def wait_until(condition: Callable[[], bool], limit_s: float = 120.0) -> float:
    """Run the event loop until a condition holds; return the seconds it took."""
    began = time.perf_counter()
    loop = QEventLoop()
    timer = QTimer(interval=1)
    timer.timeout.connect(lambda: loop.quit() if condition() or time.perf_counter() - began > limit_s else None)
    timer.start()
    loop.exec()
    timer.stop()
    if not condition():
        raise TimeoutError(f"not within {limit_s:g} s")
    return time.perf_counter() - began


def open_run(page: RunDetailPage, run_id: RunId) -> tuple[float, float, float]:
    """Return the seconds until the page shows the run, until the first chart is drawn, and until all visible ones are."""
    began = time.perf_counter()
    page.open(Route(page=RUN, run_id=run_id))
    wait_until(lambda: page._stack.currentIndex() == 1 and page.controller.summary is not None)
    shown_s = time.perf_counter() - began
    page.tabs.setCurrentWidget(page.board)

    def drawn() -> list[bool]:
        curves = page.controller.curves
        plots = page.board._visible_plots()
        return [not plot.is_dirty and all(curves.is_loaded(key) for key in plot.plan.keys) for plot in plots]

    wait_until(lambda: any(drawn()))
    first_s = time.perf_counter() - began
    wait_until(lambda: bool(drawn()) and all(drawn()))
    page.board.repaint()
    return shown_s, first_s, time.perf_counter() - began


def tensorboard_ms(folder: Path, points: int) -> float:
    """Return the milliseconds that TensorBoard's Python reader takes for one scalar of ``points`` steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step, value in enumerate(series("loss", points).tolist()):
        scalar = Summary.Value(tag="loss", simple_value=value)
        writer.add_event(Event(wall_time=float(step), step=step, summary=Summary(value=[scalar])))
    writer.close()
    began = time.perf_counter()
    EventAccumulator(str(folder), size_guidance={"scalars": 2000}).Reload().Scalars("loss")
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--peer-points", type=int, default=20_000)
    parser.add_argument("--opens", type=int, default=5)
    asked = parser.parse_args()
    app = QApplication([])
    apply_theme(app, "light")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        names = [f"metric_{n}" for n in range(NUM_CURVES)]
        long = build_run(home, name="long", steps=asked.points, metrics=names, step_time_s=0.001, number=1)
        short = build_run(home, name="short", steps=100, number=2)
        services = Services(home, Settings())
        services.open()
        wait_until(lambda: services.is_open)
        began = time.perf_counter()
        services.workspace.sync()
        index_s = time.perf_counter() - began
        page = RunDetailPage(services, FleetController(services))
        page.resize(1280, 800)
        page.show()
        open_run(page, RunId(short.name))
        times: list[tuple[float, float, float]] = []
        for _ in range(asked.opens):
            times.append(open_run(page, RunId(long.name)))
            open_run(page, RunId(short.name))
        page.controller.close()
        services.close()
        peer_ms = tensorboard_ms(Path(folder) / "tensorboard", asked.peer_points)
    result = {
        "bench": "open_run",
        "curves": NUM_CURVES,
        "points_per_curve": asked.points,
        "head_ms_median": round(statistics.median(t[0] for t in times) * 1e3, 1),
        "first_chart_ms_median": round(statistics.median(t[1] for t in times) * 1e3, 1),
        "charts_ms_median": round(statistics.median(t[2] for t in times) * 1e3, 1),
        "charts_ms_worst": round(max(t[2] for t in times) * 1e3, 1),
        "first_index_s": round(index_s, 1),
        "tensorboard_one_scalar": {"points": asked.peer_points, "load_ms": round(peer_ms, 1)},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
