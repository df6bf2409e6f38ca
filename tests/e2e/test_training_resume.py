"""A training killed with ``kill -9`` in the middle of an epoch goes on bit for bit, under real supervisors."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.events import AttemptEvent, MetricEvent
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.plugins.decode import decode_spec
from core.runlog.tail import read_batch
from core.settings.home import Home
from tests.helpers.lab import Lab, opened_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(480)
LIMIT_S = 400.0
SPEC = {
    "kind": "train.image",
    "image_size": 8,
    "width": 4,
    "stages": 2,
    "epochs": 5,
    "micro_batch": 64,
    "dropout": 0.2,
    "device": "cpu",
    "checkpoints": {"every_steps": 7},
    "launch": {"threads": 1},
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with opened_lab(Home(tmp_path / "home")) as found:
        yield found


def launch(lab: Lab) -> RunId:
    run_id = lab.launcher.launch(decode_spec(SPEC))
    lab.launched.append(run_id)
    return run_id


def losses(lab: Lab, run_id: RunId) -> dict[int, float]:
    """Return the loss of every step; a step done again counts as it was done last."""
    batch = read_batch(lab.home.run_dir(run_id), {}, 64 << 20)
    metrics = [event for file in batch.files for event in file.events if isinstance(event, MetricEvent)]
    return {event.step: float(event.values["train/loss"]) for event in metrics if "train/loss" in event.values}


def test_kill_9_in_mid_epoch_resumes_with_the_losses_of_an_uninterrupted_run(lab: Lab) -> None:
    whole = launch(lab)
    assert lab.ended(whole, LIMIT_S).state is RunState.SUCCEEDED, lab.layout(whole).stdout().read_text()
    run_id = launch(lab)
    wait_for(lambda: max(losses(lab, run_id), default=0) >= 25, "step 25", LIMIT_S)
    worker = lab.supervisor(run_id).worker
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert lab.ended(run_id, LIMIT_S).state is RunState.FAILED
    assert lab.launcher.resume(run_id) == 2
    assert lab.ended(run_id, LIMIT_S).state is RunState.SUCCEEDED
    batch = read_batch(lab.home.run_dir(run_id), {}, 64 << 20)
    attempts = [event for file in batch.files for event in file.events if isinstance(event, AttemptEvent)]
    (resumed_from,) = {event.resumed_from_step for event in attempts if event.attempt == 2}
    assert resumed_from is not None
    assert resumed_from >= 21
    assert losses(lab, run_id) == losses(lab, whole)
    assert len(losses(lab, whole)) == math.ceil(5 * 1131 / 64)
