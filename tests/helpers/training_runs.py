"""Builds run directories of trainings with all that the engine reports: stability events, profiles, texts, ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from core.contracts.profiles import (
    CATEGORIES,
    SUMMARY_FILE,
    SUMMARY_KIND,
    CategoryTime,
    MemoryCurve,
    OperatorTime,
    ProfileReport,
)
from core.contracts.states import RunState
from core.runlog.layout import RunLayout
from core.train.specs.training import TrainingSpec
from tests.helpers.builders import EPOCH, LogFile, build_run, series

_SIGNALS = (
    ("loss_spike", "roll-back", "The loss 9.41 is 31 robust deviations above the median 2.27 of the last 64 steps."),
    ("gradient_spike", "clip", "The gradient norm 48.2 is 12 times its median; most of it is in model.layers.3."),
    ("not_finite", "skip", "The loss is NaN, first in model.layers.0."),
    ("slow_step", "note", "Rank 3 took 1.9 s, 4.2 times the median of 0.45 s."),
    ("data_wait", "note", "38 % of the last 64 steps went to waiting for data."),
)
_TEXT = "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / len(values)\n"


def training_tables() -> dict[str, Any]:
    """Return the groups of a training's spec as they stand in its TOML."""
    return {
        name: msgspec.to_builtins(getattr(TrainingSpec(), name))
        for name in ("stability", "tuning", "checkpoints", "parallel")
    }


def profile_report(operators: int = 40) -> ProfileReport:
    """Return a plausible profile with that many operators."""
    rng = np.random.default_rng(operators)
    costs = np.sort(rng.exponential(0.02, operators))[::-1]
    shares = np.array([0.62, 0.14, 0.08, 0.09, 0.02, 0.05])
    times = np.linspace(0.0, 1.4, 200)
    held = (200 + 150 * np.abs(np.sin(times * 6.7))) * (1 << 20)
    return ProfileReport(
        source="torch.profiler",
        rank=0,
        device="cpu",
        first_step=41,
        steps=3,
        recorded_at=EPOCH + 50,
        wall_s=1.4,
        operators=tuple(
            OperatorTime(
                name=f"aten::operator_{n}", calls=3 * n + 1, self_cpu_s=float(cost), total_cpu_s=float(cost * 1.5)
            )
            for n, cost in enumerate(costs)
        ),
        phases=(
            OperatorTime(name="forward", calls=3, total_cpu_s=0.5),
            OperatorTime(name="backward", calls=3, total_cpu_s=0.7),
        ),
        categories=tuple(
            CategoryTime(name=name, seconds=float(1.4 * share), fraction=float(share))
            for name, share in zip(CATEGORIES, shares, strict=True)
        ),
        memory=(MemoryCurve(device="cpu", times_s=tuple(times.tolist()), allocated_bytes=tuple(int(v) for v in held)),),
    )


def build_training_run(
    home: Path,
    *,
    name: str = "small llama",
    created: float = EPOCH,
    number: int = 70,
    steps: int = 300,
    events: int = 12,
    operators: int = 40,
    ranks: int = 1,
    texts: int = 4,
    state: RunState = RunState.SUCCEEDED,
) -> Path:
    """Write a training's whole run directory and return it; ``operators`` 0: without a profile."""
    times = {
        "train/data_wait_s": np.full(steps, 0.004),
        "train/forward_backward_s": np.full(steps, 0.031),
        "train/optimizer_s": np.full(steps, 0.006),
        "train/communication_s": np.full(steps, 0.009),
        "train/step_time_s": np.full(steps, 0.052),
        "train/loss": series("train/loss", steps),
        "train/grad_norm": series("grad_loss", steps),
        "memory/peak_bytes": np.full(steps, 900.0 * (1 << 20)),
    }
    run_dir = build_run(
        home,
        name=name,
        kind="train.language",
        created=created,
        number=number,
        steps=steps,
        metrics=times,
        state=state,
        spec=training_tables(),
    )
    log = LogFile(RunLayout(run_dir).events("guard"), created + 3)
    for n in range(events):
        signal, action, message = _SIGNALS[n * n % len(_SIGNALS)]
        step = (n + 1) * steps // (events + 1)
        log.write("stability", created + 2 + step * 0.05, step=step, signal=signal, action=action, message=message)
    if texts:
        rows = [[steps * (n + 1) // texts, "def ", f"# after {n}\n{_TEXT}"] for n in range(texts)]
        log.write("table", name="Samples", columns=["step", "prompt", "text"], rows=rows)
    if operators:
        _write_profile(run_dir, log, profile_report(operators))
    for rank in range(1, ranks):
        rank_log = LogFile(RunLayout(run_dir).events(str(rank)), created + 2)
        values = {
            "train/step_time_s": np.full(5, 0.05 + 0.01 * rank),
            "memory/peak_bytes": np.full(5, 8e8 + 1e7 * rank),
        }
        rank_log.metrics(values, step_time_s=steps * 0.01)
    return run_dir


def _write_profile(run_dir: Path, log: LogFile, report: ProfileReport) -> None:
    folder = run_dir / "artifacts" / "profile-0000000041"
    folder.mkdir(parents=True)
    (folder / "trace.json").write_text("{}", encoding="utf-8")
    (folder / SUMMARY_FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(report, trace_path="trace.json")))
    log.write(
        "artifact",
        name="profile",
        path=str((folder / SUMMARY_FILE).relative_to(run_dir)),
        kind=SUMMARY_KIND,
        size_bytes=(folder / SUMMARY_FILE).stat().st_size,
        sha256="b" * 64,
    )
