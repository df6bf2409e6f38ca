"""How long a start takes, against a bare PySide6 + pyqtgraph window with one empty plot, in the same run.

Starts of both are interleaved, each in a fresh process, off screen. The history holds 10,000 runs. Prints one JSON line:
medians in milliseconds from the birth of the process (wall and CPU), their ratio, and the memory of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.builders import fill_history

ROOT = Path(__file__).parents[2]
BARE = """
import json, sys, time
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QMainWindow
import pyqtgraph as pg
app = QApplication([])
window = QMainWindow()
window.setCentralWidget(pg.PlotWidget())
window.resize(1360, 860)
window.show()
def report():
    import psutil
    process = psutil.Process()
    print(json.dumps({"ready_ms": (time.time() - process.create_time()) * 1000, "rss_bytes": process.memory_info().rss}))
    app.quit()
QTimer.singleShot(0, lambda: QTimer.singleShot(0, report))
app.exec()
"""


@dataclass(frozen=True)
class Start:
    """One start: what the process said of itself, and the processor time it took."""

    report: dict[str, Any]
    cpu_ms: float


def start(command: list[str], home: Path) -> Start:
    """Start a program, wait for its end, and return its report."""
    environment = {key: value for key, value in os.environ.items() if key not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    environment |= {"QT_QPA_PLATFORM": "offscreen", "PILOTHOUSE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Start(report=json.loads(done.stdout.strip().splitlines()[-1]), cpu_ms=cpu_s * 1000)


def summary(ours: list[Start], bare: list[Start], runs: int) -> dict[str, Any]:
    """Return medians and ratios."""

    def median(starts: list[Start], key: str) -> float:
        return statistics.median(item.report[key] for item in starts)

    def median_cpu(starts: list[Start]) -> float:
        return statistics.median(item.cpu_ms for item in starts)

    return {
        "bench": "startup",
        "runs_in_history": runs,
        "starts": len(ours),
        "ready_ms": round(median(ours, "ready_ms")),
        "painted_ms": round(median(ours, "painted_ms")),
        "bare_ready_ms": round(median(bare, "ready_ms")),
        "ratio": round(
            statistics.median(a.report["ready_ms"] / b.report["ready_ms"] for a, b in zip(ours, bare, strict=True)), 3
        ),
        "cpu_ms": round(median_cpu(ours)),
        "bare_cpu_ms": round(median_cpu(bare)),
        "cpu_ratio": round(median_cpu(ours) / median_cpu(bare), 3),
        "rss_bytes": round(median(ours, "rss_bytes")),
        "bare_rss_bytes": round(median(bare, "rss_bytes")),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--runs", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        home = Path(folder)
        fill_history(home / "history.sqlite", runs=options.runs, metrics=3, params=5)
        ours_command = [sys.executable, "-P", "-m", "app", "--quit-when-ready", "--json"]
        bare_command = [sys.executable, "-c", BARE]
        for command in (ours_command, bare_command):
            start(command, home)
        ours: list[Start] = []
        bare: list[Start] = []
        for _ in range(options.starts):
            ours.append(start(ours_command, home))
            bare.append(start(bare_command, home))
            time.sleep(0.1)
    print(json.dumps(summary(ours, bare, options.runs)))


if __name__ == "__main__":
    main()
