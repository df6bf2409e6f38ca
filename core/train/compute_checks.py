"""What can be said before a launch about optimizer, precision and starting checkpoint: quick, without torch, never raises."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from core.contracts.errors import FieldProblem
from core.runlog.layout import RunLayout
from core.settings.home import default_home
from core.train.specs.optimizer import NEEDS_WHOLE_MATRICES
from core.train.specs.training import TrainingSpec


def check_compute(spec: TrainingSpec, *, is_elsewhere: bool) -> tuple[FieldProblem, ...]:
    """Return what is wrong with optimizer, precision and starting checkpoint of a spec.

    Args:
        spec: The spec.
        is_elsewhere: It runs on other hosts, whose libraries and files are not known here.
    """
    problems = _optimizer(spec) + _precision(spec)
    if not is_elsewhere:
        problems += _libraries(spec) + _start(spec)
    return tuple(problems)


def _optimizer(spec: TrainingSpec) -> list[FieldProblem]:
    algorithm, parallel = spec.optimizer.algorithm, spec.parallel
    is_cut = parallel.processes > 1 and (parallel.sharding != "none" or parallel.tensor > 1)
    if algorithm not in NEEDS_WHOLE_MATRICES or not is_cut:
        return []
    message = f"{algorithm} needs whole matrices on each rank, but this layout shards or cuts them."
    hint = "Choose adamw or sgd, or sharding 'none' and tensor parallel 1."
    return [FieldProblem(field="optimizer.algorithm", message=message, hint=hint)]


def _precision(spec: TrainingSpec) -> list[FieldProblem]:
    if spec.precision not in ("tf32", "fp8") or spec.device in ("auto", "cuda"):
        return []
    message = f"{spec.precision} needs an NVIDIA GPU, but the device is {spec.device}."
    return [FieldProblem(field="precision", message=message, hint="Choose bf16 or fp32.")]


def _libraries(spec: TrainingSpec) -> list[FieldProblem]:
    problems: list[FieldProblem] = []
    if spec.optimizer.algorithm == "adamw-8bit" and find_spec("bitsandbytes") is None:
        message = "adamw-8bit needs bitsandbytes, which is not installed."
        hint = "Install bitsandbytes, or choose adamw."
        problems.append(FieldProblem(field="optimizer.algorithm", message=message, hint=hint))
    if spec.precision == "fp8" and find_spec("torchao") is None:
        message = "fp8 needs torchao, which is not installed."
        problems.append(FieldProblem(field="precision", message=message, hint="Install torchao, or choose bf16."))
    return problems


def _start(spec: TrainingSpec) -> list[FieldProblem]:
    start = spec.checkpoints.start_from
    if not start:
        return []
    folder = Path(start).expanduser()
    if folder.is_dir():
        if (folder / "training.pt").is_file():
            return []
        message = f"{folder} holds no checkpoint of a training."
    else:
        run = folder if folder.is_absolute() else default_home() / "runs" / start
        if any(RunLayout(run).checkpoints.glob("step-*")):
            return []
        message = f"there is neither a folder {start!r} nor a run of that id with a checkpoint."
    hint = "Choose a folder named step-... below a run's checkpoints, or a run's id."
    return [FieldProblem(field="checkpoints.start_from", message=message, hint=hint)]
