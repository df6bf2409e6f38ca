"""What the classifying and custom kinds share around a launch: checks of layout, room and teacher, and the start of ranks.

The checks are quick, need no torch and never raise.
"""

from __future__ import annotations

from pathlib import Path

from core.contracts.errors import FieldProblem
from core.contracts.estimates import MemoryEstimate
from core.contracts.worker import RunContext
from core.runlog.layout import RunLayout
from core.settings.home import default_home
from core.train.compute_checks import check_compute
from core.train.memory import estimate_memory
from core.train.models.shape import ModelShape
from core.train.parallel.layout import check_layout
from core.train.profile.nsys import check_nsys
from core.train.space import check_space, checkpoint_bytes
from core.train.specs.training import TrainingSpec


def ranks_of(spec: TrainingSpec) -> int:
    """Return how many ranks the spec starts on each node."""
    return spec.parallel.processes


def train_on_ranks(spec: TrainingSpec, context: RunContext) -> None:
    """Train on all ranks of this node; see ``core.train.ranks``."""
    from core.train.ranks import run_training

    run_training(spec, context)


def room_of(spec: TrainingSpec, shape: ModelShape) -> int | None:
    """Return the room that the checkpoints take; None for a model whose size is not known before it is built."""
    count = shape.trained_parameters or shape.parameters
    if not count:
        return None
    return checkpoint_bytes(
        count,
        averaged=spec.optimizer.ema_decay > 0,
        keep_last=spec.checkpoints.keep_last,
        keep_best=spec.checkpoints.keep_best,
        algorithm=spec.optimizer.algorithm,
    )


def estimate_of(spec: TrainingSpec, shape: ModelShape, *, sequence_length: int = 0) -> MemoryEstimate | None:
    """Return what the fullest rank needs of its device's memory; None where the number of weights is not known."""
    return estimate_memory(spec, shape, sequence_length=sequence_length, nodes=max(1, len(spec.launch.hosts)))


def check_space_of(spec: TrainingSpec, shape: ModelShape | None) -> tuple[FieldProblem, ...]:
    """Return a problem when the disk has no room for the checkpoints, or, where their size is not known, none at all."""
    return check_space((room_of(spec, shape) if shape else None) or 0, "The checkpoints")


def check_parallel(
    spec: TrainingSpec, shape: ModelShape | None, *, sequence_length: int = 0
) -> tuple[FieldProblem, ...]:
    """Return what stands against the ranks of a spec: their layout for a model of this shape, and how they are started."""
    problems = check_layout(
        spec.parallel,
        shape,
        nodes=max(1, len(spec.launch.hosts)),
        grad_accum_steps=spec.optimizer.grad_accum_steps,
        micro_batch=spec.micro_batch,
        global_batch=spec.global_batch,
        sequence_length=sequence_length,
        compute=spec.compute,
    )
    # What other hosts have on their PATH is not known here; a rank that finds none there says so.
    is_elsewhere = bool(spec.launch.hosts or spec.launch.slurm.cluster or spec.launch.kubernetes.context)
    problems = (*problems, *check_compute(spec, is_elsewhere=is_elsewhere))
    return problems if is_elsewhere else (*problems, *check_nsys(spec.tuning.nsys))


def _check_teacher(teacher: str) -> tuple[FieldProblem, ...]:
    folder = Path(teacher).expanduser()
    if folder.is_dir():
        if any((folder / name).is_file() for name in ("config.json", "model.json")):
            return ()
        message = f"{folder} holds no model (neither config.json nor model.json)."
    elif folder.is_absolute() or folder.exists():
        message = f"{folder} is no folder."
    elif RunLayout(default_home() / "runs" / teacher).spec.is_file():
        return ()
    else:
        message = f"there is neither a folder nor a run named {teacher}."
    hint = "Choose the folder of a trained model, or write the id of a run that left one."
    return (FieldProblem(field="distillation.teacher", message=message, hint=hint),)


def check_distillation(spec: TrainingSpec, *, is_augmented: bool = False) -> tuple[FieldProblem, ...]:
    """Return what is wrong with the teacher of a spec; nothing without one.

    Args:
        spec: The spec.
        is_augmented: The training samples change from epoch to epoch.
    """
    if not spec.distillation.teacher:
        return ()
    problems = list(_check_teacher(spec.distillation.teacher))
    if spec.parallel.pipeline > 1 or spec.parallel.context > 1:
        message = "a teacher needs whole sequences and the model's outputs on every rank."
        hint = "Set pipeline and context parallel to 1, or leave the teacher empty."
        problems.append(FieldProblem(field="distillation.teacher", message=message, hint=hint))
    if spec.distillation.cache_logits and spec.loading.stream:
        message = "answers are kept by the number of a sample, and a stream has none."
        hint = "Turn loading.stream off, or let the teacher answer anew at each step."
        problems.append(FieldProblem(field="distillation.cache_logits", message=message, hint=hint))
    if spec.distillation.cache_logits and is_augmented:
        message = "the teacher's answers change with each augmented image, so they cannot be kept."
        hint = "Turn the augmentation off, or let the teacher answer anew at each step."
        problems.append(FieldProblem(field="distillation.cache_logits", message=message, hint=hint))
    return tuple(problems)
