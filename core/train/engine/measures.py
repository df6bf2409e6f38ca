"""Reports the measures of each step: rank 0 those of the run, every rank its own memory and, now and then, its step time."""

from __future__ import annotations

import time
from collections.abc import Mapping

from core.contracts.worker import RunContext
from core.train.engine.contracts import Mesh, TrainingTask
from core.train.engine.meters import peak_flops, peak_memory_bytes
from core.train.specs.training import TrainingSpec

_RANK_PERIOD_S = 10.0


class StepMeasures:
    """Writes the metrics of one rank. Thread: the main one.

    Args:
        context: The run.
        mesh: Where this rank stands.
        task: Gives the model FLOPs and the name of its units.
        spec: Gives the precision.
    """

    def __init__(self, context: RunContext, mesh: Mesh, task: TrainingTask, spec: TrainingSpec) -> None:
        self._context = context
        self._mesh = mesh
        self._task = task
        self._peak_flops = peak_flops(mesh.device, spec.precision) * mesh.world
        self._next_rank_report = 0.0

    def report(
        self, step: int, values: Mapping[str, float], parts_s: Mapping[str, float], *, seconds: float, units: float
    ) -> None:
        """Report a step.

        Args:
            step: Its number.
            values: Loss, rate and the like; rank 0's are reported.
            parts_s: Seconds by what they were spent on.
            seconds: Seconds of the step.
            units: Counted units of all ranks.
        """
        now = time.monotonic()
        found: dict[str, float] = {}
        if now >= self._next_rank_report:
            self._next_rank_report = now + _RANK_PERIOD_S
            found["memory/peak_bytes"] = peak_memory_bytes(self._mesh.device)
            if not self._mesh.is_main:
                found["train/step_time_s"] = seconds
        if self._mesh.is_main:
            found |= values
            found["train/step_time_s"] = seconds
            found[f"train/{self._task.unit}_per_s"] = units / seconds
            found |= {f"train/{name}_s": spent for name, spent in parts_s.items()}
            found |= self._flops(seconds, units)
        if found:
            self._context.metric(step, found)

    def _flops(self, seconds: float, units: float) -> dict[str, float]:
        """Return model TFLOP/s and, where the device's peak is known, its share of it (MFU; Chowdhery et al., 2022)."""
        flops = self._task.training_flops(int(units)) / seconds
        if flops <= 0:
            return {}
        found = {"train/tflops": flops / 1e12}
        if self._peak_flops > 0:
            found["train/mfu"] = flops / self._peak_flops
        return found
