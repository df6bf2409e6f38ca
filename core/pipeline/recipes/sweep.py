"""``sweep``: tries values of the fields of a spec; each trial is a run of its own, and the best one is kept as a spec.

This worker trains nothing itself and loads no machine-learning framework; see ``core.pipeline.sweep``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contracts.errors import Cancelled, UserError
from core.contracts.kinds import RunKind
from core.contracts.worker import RunContext
from core.pipeline.sweep.base import Base, check, kept_base
from core.pipeline.sweep.spec import SweepSpec
from core.settings.home import Home

if TYPE_CHECKING:
    from core.pipeline.sweep.runner import SweepRunner

BASE_NAME, BEST_NAME = "base.toml", "best.toml"


def _publish(spec: SweepSpec, base: Base, runner: SweepRunner, context: RunContext) -> None:
    """Leave the report, the spec of the best trial and its figures.

    Raises:
        UserError: No trial has finished.
    """
    from core.pipeline.sweep.report import REPORT_KIND
    from core.plugins.decode import encode_spec

    report = runner.reporter.report()
    best = report.best_trial
    if best is None or best.value is None:
        raise UserError("No trial finished, so there is no best one.", "See the trials' runs for the reasons.")
    written = context.artifacts_dir / BEST_NAME
    written.write_text(encode_spec(base.trial_spec(best.values)), encoding="utf-8")
    context.artifact(written, kind="spec", name="Spec of the best trial")
    context.artifact(runner.reporter.path, kind=REPORT_KIND, name="Trials")
    numbers = {
        f"best/{path}": float(value)
        for path, value in best.values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    counts = {f"trials/{state}": float(report.count(state)) for state in ("finished", "pruned", "failed")}
    context.result({spec.metric: best.value, "best/trial": float(best.number), **numbers, **counts})
    told = ", ".join(f"{path} = {value}" for path, value in best.values.items())
    context.log(f"Best: trial {best.number} with {spec.metric} = {best.value:.6g} ({told}).")


def run(spec: SweepSpec, context: RunContext) -> None:
    """Run the trials and publish the best; see ``core.contracts.worker`` for the context.

    Raises:
        UserError: No trial finished, or too many in a row failed.
        InvalidSpec: The spec cannot be varied as asked.
    """
    from core.pipeline.sweep.runner import SweepRunner
    from core.workspace.workspace import Workspace

    base = kept_base(spec, Home(context.home), context.artifacts_dir / BASE_NAME)
    workspace = Workspace.open(context.home)
    try:
        runner = SweepRunner(spec, context, workspace, base)
        runner.reporter.begin()
        try:
            runner.run()
        finally:
            runner.reporter.settle()
        _publish(spec, base, runner, context)
    except Cancelled:
        context.log("Stopped, and its trials with it; a resume goes on with them.")
    finally:
        workspace.close()


KIND = RunKind(
    spec=SweepSpec,
    title="Sweep",
    summary="Tries values of a spec's fields, each trial a run of its own, and finds the best.",
    group="pipeline",
    icon="sweep",
    run=run,
    check=check,
    examples=("sweep.toml",),
)
