"""Time to the first picture of a long stored run, against TensorBoard's reader over the same data in the same run.

One run of 10 scalars is written as a worker writes it, folded into a history, and all ten curves are asked for at the
width of a plot: in a fresh process with the history's pages dropped from the cache, and again warm. TensorBoard's
EventAccumulator (size guidance 0, so that it keeps every point) then reads the same points from its own event file.
Prints one JSON line; processor seconds beside wall seconds, since the machine may be shared.
Run: ``python -m tests.bench.bench_curves [--steps 100000] [--without-peer]``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from core.history.history import History
from tests.helpers.builders import build_run

SCALARS = (*(f"scalar/{number}" for number in range(9)), "train/loss")
POINTS = 2000
COLD = """
import time
begin, begin_cpu = time.perf_counter(), time.process_time()
import sys
from pathlib import Path
from core.history.history import History
imported, imported_cpu = time.perf_counter(), time.process_time()
history = History.open(Path(sys.argv[1]))
curves = [history.curve(sys.argv[2], key, points=int(sys.argv[3])) for key in sys.argv[4:]]
assert all(len(curve.value) > 100 for curve in curves)
end, end_cpu = time.perf_counter(), time.process_time()
import json
print(json.dumps({
    "import_s": imported - begin, "import_cpu_s": imported_cpu - begin_cpu,
    "open_and_read_s": end - imported, "open_and_read_cpu_s": end_cpu - imported_cpu,
}))
"""
PEER = """
import json, sys, time
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
begin, begin_cpu = time.perf_counter(), time.process_time()
reader = EventAccumulator(sys.argv[1], size_guidance={SCALARS: 0})
reader.Reload()
points = [len(reader.Scalars(key)) for key in sys.argv[3:]]
assert points == [int(sys.argv[2])] * len(points)
print(json.dumps({"read_s": time.perf_counter() - begin, "read_cpu_s": time.process_time() - begin_cpu}))
"""


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of one call."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - begin, time.process_time() - begin_cpu


def drop_from_cache(path: Path) -> None:
    """Ask the system to forget the pages of a file; it need not obey."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def child(program: str, *arguments: str) -> dict[str, float]:
    """Run a program in a fresh interpreter and return what it measured."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def median_ms(action: Callable[[], object], times: int) -> float:
    """Return the median processor time of a call in milliseconds."""
    return round(statistics.median(timed(action)[1] for _ in range(times)) * 1e3, 2)


def warm_figures(history: History, run_id: str, steps: int) -> dict[str, float]:
    """Return processor milliseconds of what a window asks for while it is open."""
    a, b = steps // 3, steps // 3 + steps // 20
    return {
        "all_ten_first_view": median_ms(lambda: [history.curve(run_id, key, points=POINTS) for key in SCALARS], 15),
        "one_first_view": median_ms(lambda: history.curve(run_id, SCALARS[0], points=POINTS), 30),
        "one_zoomed_to_a_twentieth": median_ms(
            lambda: history.curve(run_id, SCALARS[0], first=a, last=b, points=POINTS), 15
        ),
        "one_exact": median_ms(lambda: history.curve(run_id, SCALARS[0], points=steps), 3),
    }


def measure(folder: Path, steps: int, *, with_peer: bool) -> dict[str, object]:
    """Return all figures."""
    run_dir = build_run(folder, name="long", steps=steps, metrics=SCALARS, telemetry=False, checkpoints=False)
    events_bytes = sum(path.stat().st_size for path in run_dir.glob("events.*"))
    database = folder / "history.sqlite"
    history = History.open(database)
    ingest_s, ingest_cpu_s = timed(lambda: history.index([run_dir]))
    history.close()
    drop_from_cache(database)
    arguments = (str(database), run_dir.name, str(POINTS), *SCALARS)
    figures: dict[str, object] = {
        "bench": "curves",
        "steps": steps,
        "scalars": len(SCALARS),
        "points_asked": POINTS,
        "event_log_mb": round(events_bytes / 1e6, 1),
        "history_mb": round(database.stat().st_size / 1e6, 1),
        "ingest": {
            "wall_s": round(ingest_s, 2),
            "cpu_s": round(ingest_cpu_s, 2),
            "events_per_cpu_s": round(steps / ingest_cpu_s),
        },
        "fresh_process_cold_file": child(COLD, *arguments),
        "fresh_process": child(COLD, *arguments),
    }
    history = History.open(database)
    figures["warm_cpu_ms"] = warm_figures(history, run_dir.name, steps)
    if with_peer:
        history.export(run_dir.name, "tensorboard", folder / "tensorboard")
        peer = child(PEER, str(folder / "tensorboard"), str(steps), *SCALARS)
        figures["tensorboard_event_accumulator"] = peer
        figures["tensorboard_mb"] = round(sum(p.stat().st_size for p in (folder / "tensorboard").iterdir()) / 1e6, 1)
        ours = figures["fresh_process_cold_file"]
        assert isinstance(ours, dict)
        figures["times_quicker_cpu"] = round(peer["read_cpu_s"] / ours["open_and_read_cpu_s"])
    history.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--without-peer", action="store_true", help="leave TensorBoard out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.steps, with_peer=not arguments.without_peer)
    print(json.dumps(figures, default=float))


if __name__ == "__main__":
    main()
