"""Records a profile of a few steps while a training runs: on request, or at the step that the spec names.

How: the loop calls ``before_step`` and ``after_step``. Rank 0 looks for ``control/profile``, every other rank for
``control/profile.<rank>``, so that a request may name ranks; ``control/profile.steps`` says how many steps. Recording is
local: no rank waits for another on its account, except that a recording rank is a little slower and needs a moment to write.
A profile that cannot be recorded or written is a warning in the log, never the end of the training.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

import torch
from torch.autograd.profiler import emit_nvtx
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, record_function

from core.contracts.profiles import MOST_STEPS, TRACE_KIND, OperatorTime, ProfileReport
from core.contracts.worker import RunContext
from core.runlog.layout import RunLayout
from core.train.engine.contracts import Mesh
from core.train.profile.reports import FOLDER, MOST_OPERATORS, write_report
from core.train.profile.trace import STEP, read_trace
from core.train.specs.tuning import TuningSpec

TRACE_FILE = "trace.json.gz"
_MICROSECOND_S = 1e-6


class ProfileRecorder:
    """The profiler of one rank. Thread: the one that trains. While nothing is recorded a step costs a look-up or two."""

    def __init__(self, context: RunContext, mesh: Mesh, tuning: TuningSpec) -> None:
        """Prepare; records nothing yet.

        Args:
            context: Of this rank: requests are taken from it, artifacts given to it.
            mesh: Where this rank stands.
            tuning: At which step to record by itself, and how many.
        """
        self._context = context
        self._mesh = mesh
        self._tuning = tuning
        self._request = RunLayout(context.run_dir).profile_request(mesh.rank).name
        self._due_step = tuning.profile_at_step
        self._profiler: profile | None = None
        self._step_mark: record_function | None = None
        # Under Nsight Systems torch's operations and the marks of the engine become NVTX ranges of its timeline.
        self._nvtx = emit_nvtx() if tuning.nsys and mesh.device.type == "cuda" else contextlib.nullcontext()
        self._nvtx.__enter__()
        self._first_step = 0
        self._steps_done = 0
        self._steps_wanted = 0

    @property
    def is_recording(self) -> bool:
        """True within a profile: the times of such steps are no measure of speed."""
        return self._profiler is not None

    def before_step(self, step: int) -> None:
        """Begin a profile when one is due; call it before anything of the step."""
        if self._profiler is None:
            # The spec names a step for the run as a whole, so it is rank 0's; requests name their ranks.
            is_due = self._mesh.is_main and step == self._due_step
            if self._context.take_request(self._request):
                self._begin(step, self._asked_steps())
            elif is_due:
                self._due_step = 0  # once: a roll-back comes to the same step again
                self._begin(step, self._tuning.profile_steps)
        if self._profiler is not None:
            self._step_mark = record_function(STEP)
            self._step_mark.__enter__()

    def after_step(self, step: int) -> None:
        """End the profile after the last of its steps, and write it; call it after all of the step."""
        del step
        if self._profiler is None:
            return
        self._end_mark()
        self._steps_done += 1
        if self._steps_done >= self._steps_wanted:
            self._finish()

    def close(self) -> None:
        """Write what has been recorded when the training ends within a profile."""
        if self._profiler is not None:
            self._end_mark()
            self._finish()
        self._nvtx.__exit__(None, None, None)

    def _end_mark(self) -> None:
        if self._step_mark is not None:
            self._synchronize()
            self._step_mark.__exit__(None, None, None)
            self._step_mark = None

    def _synchronize(self) -> None:
        """Wait for the device, so that what a step has begun is counted as its own."""
        if self._mesh.device.type != "cpu":
            torch.accelerator.synchronize(self._mesh.device)

    def _asked_steps(self) -> int:
        """Return how many steps the request names; the spec's number when it names none."""
        path = RunLayout(self._context.run_dir).profile_steps
        with contextlib.suppress(OSError, ValueError):
            return min(max(int(path.read_text(encoding="ascii")), 1), MOST_STEPS)
        return self._tuning.profile_steps

    def _begin(self, step: int, steps: int) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")
        activities = [ProfilerActivity.CPU]
        if self._mesh.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        elif self._mesh.device.type == "xpu":
            activities.append(ProfilerActivity.XPU)
        self._first_step, self._steps_done, self._steps_wanted = step, 0, steps
        profiler = profile(activities=activities, profile_memory=True)
        try:
            profiler.start()
        except RuntimeError as error:  # such as another profiler that is attached to the process
            self._context.log(f"No profile can be recorded: {error}", "warning")
            return
        self._profiler = profiler
        self._context.log(f"Records a profile of {steps} steps from step {step} on rank {self._mesh.rank}.")

    def _finish(self) -> None:
        profiler, self._profiler = self._profiler, None
        assert profiler is not None
        profiler.stop()
        if not self._steps_done:
            return
        try:
            self._write(profiler)
        except OSError as error:
            self._context.log(f"The profile cannot be written: {error.strerror or error}.", "warning")

    def _write(self, profiler: profile) -> None:
        mesh, context = self._mesh, self._context
        name = f"step-{self._first_step:010d}-rank-{mesh.rank}"
        folder = context.artifacts_dir / FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        trace = folder / TRACE_FILE
        profiler.export_chrome_trace(str(trace))
        summary = read_trace(trace)
        operators, phases = _costs(profiler.key_averages())
        report = ProfileReport(
            source="torch.profiler",
            rank=mesh.rank,
            device=str(mesh.device),
            first_step=self._first_step,
            steps=self._steps_done,
            recorded_at=time.time(),
            wall_s=summary.wall_s,
            operators=operators,
            phases=phases,
            categories=summary.categories,
            memory=summary.memory,
            trace_path=TRACE_FILE,
        )
        write_report(context, folder, report)
        context.artifact(trace, kind=TRACE_KIND, name=f"{name} trace", meta={"rank": float(mesh.rank)})


def _costs(averages: Sequence[FunctionEventAvg]) -> tuple[tuple[OperatorTime, ...], tuple[OperatorTime, ...]]:
    """Return the costliest operators, and the marked phases, of a profile."""
    found = [(one.is_user_annotation, _cost(one)) for one in averages if one.count and one.key != "[memory]"]
    on_device = any(cost.self_device_s for _, cost in found)
    operators = [cost for is_mark, cost in found if not is_mark]
    operators.sort(key=lambda cost: cost.self_device_s if on_device else cost.self_cpu_s, reverse=True)
    phases = [cost for is_mark, cost in found if is_mark and cost.name != STEP]
    phases.sort(key=lambda cost: cost.total_device_s if on_device else cost.total_cpu_s, reverse=True)
    return tuple(operators[:MOST_OPERATORS]), tuple(phases[:MOST_OPERATORS])


def _cost(average: FunctionEventAvg) -> OperatorTime:
    return OperatorTime(
        name=str(average.key),
        calls=average.count,
        self_cpu_s=average.self_cpu_time_total * _MICROSECOND_S,
        total_cpu_s=average.cpu_time_total * _MICROSECOND_S,
        self_device_s=average.self_device_time_total * _MICROSECOND_S,
        total_device_s=average.device_time_total * _MICROSECOND_S,
    )
