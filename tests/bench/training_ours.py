"""Our contender of ``bench_training`` in one process: the worker's part of a run, with its guard, metrics and event lines.

``python -m tests.bench.training_ours HOME SPEC WARMUP_STEPS`` prints one JSON line as ``training_peers`` does. Supervisor and
telemetry, which are processes of their own, are left out; ``bench_supervisor`` measures them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from core.jobs.context import WorkerContext
from core.plugins.decode import decode_spec
from core.plugins.registry import registry
from core.runlog.layout import RunLayout

_RUN = "20260101-000000-bench-000000"


class _TimedContext(WorkerContext):
    """A real worker's handle that notes when each step was reported: processor and wall seconds, tokens."""

    def __init__(self, home: Path) -> None:
        run_dir = home / "runs" / _RUN
        for folder in (RunLayout(run_dir).scratch, RunLayout(run_dir).control, RunLayout(run_dir).checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(home, run_dir, 1, writer="0")
        self.steps: list[tuple[float, float, float]] = []

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        super().metric(step, values)
        if "train/loss" in values:
            tokens = values["train/tokens_per_s"] * values["train/step_time_s"]
            self.steps.append((time.process_time(), time.perf_counter(), tokens))


def main(home: Path, text: str, warmup_steps: int) -> None:
    """Train, and print tokens per second of wall and of processor time after the warm-up."""
    spec = decode_spec(json.loads(text))
    context = _TimedContext(home)
    rank_run = registry().get(str(spec.__struct_config__.tag)).rank_run
    assert rank_run is not None
    rank_run(spec, context)
    context.close()
    first, last = context.steps[warmup_steps - 1], context.steps[-1]
    tokens = sum(step[2] for step in context.steps[warmup_steps:])
    rates = {"tokens_per_s": tokens / (last[1] - first[1]), "tokens_per_cpu_s": tokens / (last[0] - first[0])}
    sys.stdout.write(f"\n{json.dumps(rates)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
