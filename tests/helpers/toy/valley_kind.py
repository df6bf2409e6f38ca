"""A kind of run with a smooth loss over its fields, for sweeps: one lowest point, approached step by step."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from core.contracts.errors import FieldProblem, UserError
from core.contracts.kinds import RunKind
from core.contracts.specs import RunSpec, unit
from core.contracts.worker import RunContext


class ValleySpec(RunSpec, frozen=True, kw_only=True, tag="test.valley"):
    """The lowest loss is at ``lr`` 1e-2 and ``width`` 40, whatever the mode."""

    lr: Annotated[float, Meta(title="Learning rate", gt=0, le=10)] = 1e-3
    width: Annotated[int, Meta(title="Width", ge=1, le=1024)] = 16
    mode: Annotated[Literal["plain", "rough"], Meta(title="Mode")] = "plain"
    steps: Annotated[int, Meta(title="Steps", ge=1)] = 1
    step_s: Annotated[float, Meta(title="Step time", ge=0, extra_json_schema=unit("s"))] = 0.0
    fails_above: Annotated[float, Meta(title="Fails above", ge=0)] = math.inf


def depth(spec: ValleySpec) -> float:
    """Return how far a spec is from the lowest point; 0 there."""
    return (math.log10(spec.lr) + 2) ** 2 + ((spec.width - 40) / 20) ** 2


def check(spec: ValleySpec) -> tuple[FieldProblem, ...]:
    """Refuse one width, as a kind refuses a combination."""
    return (FieldProblem(field="width", message="must not be 13."),) if spec.width == 13 else ()


def run(spec: ValleySpec, context: RunContext) -> None:
    """Approach the depth over the steps."""
    checkpoint = context.latest_checkpoint()
    first = checkpoint.step if checkpoint is not None else 0
    context.started_from(first or None)
    for step in range(first + 1, spec.steps + 1):
        if spec.lr > spec.fails_above:
            raise UserError("The loss went away.", "Lower the learning rate.")
        context.metric(step, {"val/loss": depth(spec) + 1 / step})
        context.progress(step / spec.steps, "Descending", step=step, total_steps=spec.steps)
        if context.should_stop():
            (context.new_checkpoint(step) / "step").write_text(str(step))
            context.commit_checkpoint(step)
            return
        time.sleep(spec.step_s)
    made = Path(context.artifacts_dir) / "depth.txt"
    made.write_text(repr(depth(spec)))
    context.artifact(made, kind="toy")
    context.result({"test/depth": depth(spec)})


KIND = RunKind(spec=ValleySpec, title="Valley", summary="Descends.", group="train", icon="flask", run=run, check=check)
