"""Finds and loads the model that another one learns from: a folder, or what a run left.

Knows the two forms our runs write: an image network (``model.json`` and its weights) and a folder in Hugging Face layout.
The student's task says which it can run. Importing this module imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.worker import RunContext
from core.runlog.lineage import inherited_artifacts

if TYPE_CHECKING:
    from torch import nn

    from core.train.engine.contracts import TrainingTask

IMAGE_CONFIG = "model.json"
IMAGE_WEIGHTS = "model.safetensors"
_FORMS = ("model.huggingface", "model.config")


@runtime_checkable
class LearnsFromTeacher(Protocol):
    """A task that can run another model than its own student."""

    def load_teacher(self, folder: Path) -> nn.Module:
        """Return the model of a folder, on the CPU, as the task's ``forward`` runs it; raises UserError if it does not fit."""
        ...


def find_teacher(teacher: str, runs_dir: Path) -> Path:
    """Return the folder of a teacher's files.

    Args:
        teacher: A folder, or the id of a run.
        runs_dir: Where runs are.

    Raises:
        UserError: There is none.
        EnvironmentProblem: The run's log cannot be read.
    """
    folder = Path(teacher).expanduser()
    if folder.is_dir():
        return folder
    if not (runs_dir / teacher).is_dir() or folder.is_absolute():
        raise UserError(
            f"There is neither a folder nor a run named {teacher} to learn from.",
            "Choose the folder of a trained model, or write the id of a run that left one.",
        )
    try:
        left = inherited_artifacts(runs_dir, teacher)
    except OSError as error:
        raise EnvironmentProblem(
            f"The log of run {teacher} cannot be read: {error.strerror}.", "Check the disk."
        ) from error
    for kind in _FORMS:
        if kind in left:
            return left[kind] if left[kind].is_dir() else left[kind].parent
    raise UserError(
        f"Run {teacher} left no model that can teach.",
        "Name a run of an image, text or language training that succeeded.",
    )


def load_teacher(teacher: str, task: TrainingTask, context: RunContext) -> nn.Module:
    """Return a teacher that the task's ``forward`` can run, on the CPU.

    Raises:
        UserError: There is none, or it is of another kind or of other classes.
    """
    folder = find_teacher(teacher, context.home / "runs")
    if not isinstance(task, LearnsFromTeacher):
        raise UserError("This kind of training cannot learn from a teacher.", "Leave distillation.teacher empty.")
    return task.load_teacher(folder)
