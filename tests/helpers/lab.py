"""A home in which tests launch runs for real, and what they ask of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from core.contracts.events import MetricEvent
from core.contracts.ids import RunId
from core.jobs.launcher import Launcher
from core.jobs.processes import marked_processes
from core.jobs.reconcile import Standing
from core.jobs.records import SupervisorRecord, read_record
from core.plugins.decode import decode_spec
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from core.settings.home import Home
from tests.helpers.waiting import wait_for


class Lab:
    """A home with the toy kind installed, and what the tests ask of it."""

    def __init__(self, home: Home) -> None:
        home.prepare()
        self.home = home
        self.launcher = Launcher(home)
        self.launched: list[RunId] = []

    def launch(self, **fields: object) -> RunId:
        run_id = self.launcher.launch(decode_spec({"kind": "test.toy", **fields}))
        self.launched.append(run_id)
        return run_id

    def layout(self, run_id: RunId) -> RunLayout:
        return RunLayout(self.home.run_dir(run_id))

    def ended(self, run_id: RunId, limit_s: float = 60.0) -> Standing:
        def standing() -> Standing | None:
            now = self.launcher.standing(run_id)
            return now if now.state is not None and now.state.is_terminal else None

        return wait_for(standing, f"{run_id} to end", limit_s)

    def steps(self, run_id: RunId) -> list[tuple[int, float]]:
        batch = read_batch(self.home.run_dir(run_id), {}, 64 << 20)
        events = [event for file in batch.files for event in file.events]
        return [(e.step, float(e.values["toy/value"])) for e in events if isinstance(e, MetricEvent)]

    def supervisor(self, run_id: RunId) -> SupervisorRecord:
        def record() -> SupervisorRecord | None:
            found = read_record(self.layout(run_id).supervisor(), SupervisorRecord)
            return found if found is not None and found.worker is not None else None

        return wait_for(record, "the worker to start")

    def at_step(self, run_id: RunId, step: int) -> None:
        wait_for(lambda: any(done >= step for done, _ in self.steps(run_id)), f"step {step}")


@contextmanager
def opened_lab(home: Home) -> Iterator[Lab]:
    """Yield a lab in a home; whatever its runs left alive is killed at the end."""
    found = Lab(home)
    try:
        yield found
    finally:
        for run_id in found.launched:
            for pid in marked_processes(run_id):
                os.kill(pid, signal.SIGKILL)
