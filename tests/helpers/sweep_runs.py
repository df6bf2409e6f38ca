"""Sweeps as their workers leave them: reports of any size over a known valley, and run directories that hold them."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from core.contracts.states import RunState
from core.contracts.sweeps import SWEEP_KIND, SweepParameter, SweepReport, SweepTrial
from core.runlog.layout import RunLayout
from tests.helpers.builders import EPOCH, build_run

PARAMETERS = (
    SweepParameter(
        path="optimizer.lr", label="Learning rate", kind="number", text="1e-4..1e-1 log", low=1e-4, high=1e-1, log=True
    ),
    SweepParameter(path="width", label="Width", kind="integer", text="16..64 step 8", low=16, high=64),
    SweepParameter(
        path="optimizer.algorithm",
        label="Algorithm",
        kind="choice",
        text="adamw|muon|sgd",
        choices=("adamw", "muon", "sgd"),
    ),
    SweepParameter(
        path="optimizer.weight_decay", label="Weight decay", kind="number", text="0..0.2", low=0.0, high=0.2
    ),
)
IMPORTANCE = (0.61, 0.24, 0.13, 0.02)


def sweep_trial(number: int, state: str, run_id: str = "") -> SweepTrial:
    """Return a trial with values that its number fixes."""
    rng = np.random.default_rng([7, number])
    values = {
        "optimizer.lr": float(f"{10 ** rng.uniform(-4, -1):.3g}"),
        "width": int(rng.integers(2, 9) * 8),
        "optimizer.algorithm": str(rng.choice(["adamw", "muon", "sgd"])),
        "optimizer.weight_decay": float(f"{rng.uniform(0, 0.2):.3g}"),
    }
    depth = (math.log10(values["optimizer.lr"]) + 2.3) ** 2 / 4 + ((values["width"] - 44) / 50) ** 2
    value = 0.4 + depth + (0.3 if values["optimizer.algorithm"] == "sgd" else 0.0) + float(rng.uniform(0, 0.05))
    step = 1200 if state == "finished" else int(rng.integers(40, 600))
    return SweepTrial(
        number=number,
        state=state,
        values=values,
        value=None if state in ("failed", "waiting") else value,
        step=None if state in ("failed", "waiting") else step,
        run_id=run_id or f"20260924-061{number // 60 % 10}{number % 60:02d}-trial-{number:06x}",
        message={"failed": "The device ran out of memory.", "pruned": f"pruned at step {step}"}.get(state, ""),
        started=EPOCH + 60.0 * number,
        ended=None if state in ("running", "waiting") else EPOCH + 60.0 * number + 45.0,
    )


def sweep_report(trials: int, *, running: int = 0, run_ids: dict[int, str] | None = None) -> SweepReport:
    """Return a report: one in nine failed, one in three pruned, the last ``running`` go on, the rest finished."""
    made = [sweep_trial(n, _state(n, trials - running), (run_ids or {}).get(n, "")) for n in range(trials)]
    finished = [trial for trial in made if trial.state == "finished"]
    best = min(finished, key=lambda trial: trial.value or 0.0, default=None)
    known = len(finished) >= 2
    parameters = tuple(
        msgspec.structs.replace(p, importance=share if known else None)
        for p, share in zip(PARAMETERS, IMPORTANCE, strict=True)
    )
    return SweepReport(
        metric="val/loss",
        goal="minimize",
        sampler="tpe",
        pruner="asha",
        planned=max(trials, 40),
        parameters=parameters,
        trials=tuple(made),
        best=None if best is None else best.number,
        importance_note="" if known else "Importance is told once two trials have finished.",
    )


def _state(number: int, ended: int) -> str:
    if number >= ended:
        return "running"
    if number % 9 == 8:
        return "failed"
    return "pruned" if number % 3 == 1 else "finished"


def write_report(run_dir: Path, report: SweepReport) -> None:
    """Put a report where the sweep's worker does."""
    artifacts = RunLayout(run_dir).artifacts
    artifacts.mkdir(exist_ok=True)
    partial = artifacts / ".sweep.json.partial"
    partial.write_bytes(msgspec.json.encode(report))
    partial.replace(artifacts / "sweep.json")


def build_sweep_run(
    home: Path,
    report: SweepReport | None,
    *,
    name: str = "digits: learning rate and width",
    state: RunState = RunState.SUCCEEDED,
    created: float = EPOCH,
    number: int = 0,
) -> Path:
    """Write the run directory of a sweep and return it."""
    steps = 1 if report is None else sum(trial.ended is not None for trial in report.trials)
    best = np.minimum.accumulate(np.linspace(1.4, 0.42, max(steps, 1)))
    run_dir = build_run(
        home,
        name=name,
        kind=SWEEP_KIND,
        state=state,
        created=created,
        number=number,
        metrics={"sweep/best": best},
        checkpoints=False,
    )
    if report is not None:
        write_report(run_dir, report)
    return run_dir
