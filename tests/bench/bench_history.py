"""Processor time of the run table's questions over many runs, and of folding live events into the index.

The index is filled with 10 final metrics, 20 values of the spec and some tags a run. Prints one JSON line of medians.
Run: ``python -m tests.bench.bench_history [--runs 10000 100000]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.contracts.runs import RunQuery
from core.contracts.states import RunState
from core.history.history import History
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from tests.helpers.builders import LogFile, build_run, fill_history, new_run_dir

QUERIES = {
    "first_page": RunQuery(limit=50),
    "first_200": RunQuery(),
    "deep_page": RunQuery(limit=50, offset=5000),
    "text": RunQuery(text="river", limit=50),
    "rare_text": RunQuery(text="-1234", limit=50),
    "short_text": RunQuery(text="x", limit=50),
    "state_and_kind": RunQuery(states=(RunState.FAILED,), kinds=("train.image",), limit=50),
    "tag": RunQuery(tags=("paper",), limit=50),
    "sort_name": RunQuery(sort="name", descending=False, limit=50),
    "sort_duration": RunQuery(sort="duration", limit=50),
    "sort_metric": RunQuery(sort="metric:metric/3", limit=50),
    "sort_metric_filtered": RunQuery(sort="metric:metric/3", states=(RunState.FAILED,), tags=("paper",), limit=50),
    "sort_param": RunQuery(sort="param:param.3", limit=50),
}


def cpu_ms(action: Callable[[], object], times: int = 9) -> float:
    """Return the median processor time of a call in milliseconds."""

    def once() -> float:
        begin = time.process_time()
        action()
        return time.process_time() - begin

    once()
    return round(statistics.median(once() for _ in range(times)) * 1e3, 2)


def over(folder: Path, runs: int) -> dict[str, object]:
    """Return the figures over this many runs."""
    database = folder / f"{runs}.sqlite"
    fill_history(database, runs)
    begin = time.perf_counter()
    history = History.open(database)
    history.runs(RunQuery(limit=50))
    opened_ms = (time.perf_counter() - begin) * 1e3
    figures: dict[str, object] = {
        name: cpu_ms(lambda query=query: history.runs(query)) for name, query in QUERIES.items()
    }
    history.close()
    return {
        "file_mb": round(database.stat().st_size / 1e6),
        "open_and_first_page_wall_ms": round(opened_ms, 1),
        **figures,
    }


def live(folder: Path, rounds: int = 60) -> dict[str, float]:
    """Return what one tick costs while ten scalars a step come in at 20 steps a tick."""
    run_dir = new_run_dir(folder)
    log = LogFile(RunLayout(run_dir).events("worker"))
    history = History.open(folder / "live.sqlite")
    history.add(run_dir)
    columns = {f"scalar/{number}": np.linspace(0.0, 1.0, 20) for number in range(10)}
    costs: list[float] = []
    for tick in range(rounds):
        log.metrics(columns, first_step=tick * 20)
        begin = time.process_time()
        history.ingest(run_dir, read_batch(run_dir, history.offsets(run_dir.name)))
        costs.append(time.process_time() - begin)
    begin = time.process_time()
    history.index([build_run(folder, number=number, steps=30, telemetry=False) for number in range(1, 101)])
    whole_runs = time.process_time() - begin
    history.close()
    return {
        "tick_cpu_ms": round(statistics.median(costs) * 1e3, 2),
        "write_and_index_a_small_run_cpu_ms": round(whole_runs * 10, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[10_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {f"cpu_ms_over_{runs}_runs": over(Path(folder), runs) for runs in arguments.runs}
        print(json.dumps({"bench": "history", "live": live(Path(folder)), **figures}))


if __name__ == "__main__":
    main()
