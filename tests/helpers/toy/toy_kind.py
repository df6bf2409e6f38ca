"""A third party's kind of run, light and obedient to a fault: what the tests of jobs launch for real.

Installed for a test by putting its folder and an entry point on PYTHONPATH (see ``tests.helpers.toy_plugin``).
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from core.contracts.errors import UserError
from core.contracts.kinds import RunKind
from core.contracts.specs import RunSpec, unit
from core.contracts.worker import RunContext


class ToySpec(RunSpec, frozen=True, kw_only=True, tag="test.toy"):
    """Counts steps; each fault is a switch."""

    steps: Annotated[int, Meta(title="Steps", ge=1)] = 5
    step_s: Annotated[float, Meta(title="Step time", ge=0, extra_json_schema=unit("s"))] = 0.0
    checkpoint_every: int = 2
    raise_at: int = -1
    bug_at: int = -1
    kill_self_at: int = -1
    no_space_at: int = -1
    fill_disk_at: int = -1
    hold_at: int = -1
    ignore_stop: bool = False
    orphan: bool = False
    endless: bool = False


def _orphan() -> None:
    """Leave a process in a session of its own that ignores TERM, as a careless script would."""
    code = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()


def _faults(spec: ToySpec, step: int) -> None:
    if step == spec.raise_at:
        raise UserError("The toy was told to fail.", "Tell it not to.")
    if step == spec.bug_at:
        raise ZeroDivisionError("toy bug")
    if step == spec.no_space_at:
        raise OSError(errno.ENOSPC, "No space left on device")
    if step == spec.fill_disk_at:
        with Path("scratch-fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    if step == spec.kill_self_at:
        os.kill(os.getpid(), signal.SIGKILL)


def run(spec: ToySpec, context: RunContext) -> None:
    """Count, with a value that depends on every earlier step, so that a wrong resume shows; the head keeps what is made."""
    is_head = context.node == context.placement.head.node
    if spec.ignore_stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if spec.orphan:
        _orphan()
    checkpoint = context.latest_checkpoint()
    step, value = 0, 1.0
    if checkpoint is not None:
        step, value = checkpoint.step, float((Path(checkpoint.path) / "value").read_text())
    context.started_from(checkpoint.step if checkpoint else None)
    print(f"toy starts at {step}", flush=True)
    while step < spec.steps or spec.endless:
        step += 1
        value = value * 1.25 % 7
        _faults(spec, step)
        context.metric(step, {"toy/value": value})
        context.progress(step / spec.steps, "counting", step=step, total_steps=spec.steps)
        while step == spec.hold_at and context.attempt == 1 and not context.should_stop():
            time.sleep(0.01)
        stopping = context.should_stop() and not spec.ignore_stop
        if is_head and (step % spec.checkpoint_every == 0 or stopping):
            (context.new_checkpoint(step) / "value").write_text(repr(value))
            context.commit_checkpoint(step)
        if stopping:
            return
        time.sleep(spec.step_s)
    if not is_head:
        return
    made = context.artifacts_dir / "value.txt"
    made.write_text(repr(value))
    context.artifact(made, kind="toy")
    context.result({"toy/final": value})


KIND = RunKind(spec=ToySpec, title="Toy", summary="Counts.", group="train", icon="flask", run=run, spans_nodes=True)
