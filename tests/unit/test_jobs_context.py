"""The time left is told from the stage that a run is in, not from its slow beginning."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from core.jobs.context import WorkerContext
from core.runlog.layout import RunLayout


def test_the_time_left_does_not_count_what_came_before_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    run_dir = tmp_path / "runs" / "run"
    run_dir.mkdir(parents=True)
    context = WorkerContext(tmp_path, run_dir, 1)

    def told(second: float, done: float, stage: str) -> float | None:
        clock[0] = second
        context.progress(done, stage)
        line = RunLayout(run_dir).events("worker").read_text().splitlines()[-1]
        return json.loads(line)["eta_s"]

    assert told(0, 0.0, "Preparing") is None
    assert told(100, 0.1, "Training") is None  # the slow first step, or a resumed run
    assert told(101, 0.2, "Training") == pytest.approx(8.0)
    assert told(108, 0.9, "Training") == pytest.approx(1.0)
    assert told(110, 0.0, "Writing") is None
    assert told(112, 0.5, "Writing") == pytest.approx(2.0)
    assert told(113, 0.75, "Checking") == pytest.approx(1.0)  # goes on with the same fraction
