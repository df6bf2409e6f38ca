"""``train.custom``: trains what a user's Python file defines, a model, data and a loss, with everything the engine has.

The file needs no import of ours; ``docs/guide/custom-training.md`` says which functions it has. Checks stand here, loading
in ``core.train.models.custom_module``, learning in ``core.train.custom_learning``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from core.contracts.errors import FieldProblem
from core.contracts.kinds import RunKind
from core.contracts.worker import RunContext
from core.train.checking import check_parallel, check_space_of, ranks_of, train_on_ranks
from core.train.custom_file import check_file
from core.train.data.checks import check_stream
from core.train.fields import extra
from core.train.models.shape import ModelShape
from core.train.specs.training import TrainingSpec

_CODE = "Code"


class CustomTrainingSpec(TrainingSpec, frozen=True, kw_only=True, tag="train.custom"):
    """Train the model of a Python file."""

    file: Annotated[
        str,
        Meta(
            title="File",
            description="Python file with model(settings), data(settings) and loss(outputs, batch).",
            extra_json_schema={**extra(_CODE), "path": "file"},
        ),
    ] = ""
    settings: Annotated[
        dict[str, str],
        Meta(
            title="Settings",
            description="Given to the file's functions; numbers, true and false arrive as such.",
            extra_json_schema=extra(_CODE),
        ),
    ] = {}


def check(spec: CustomTrainingSpec) -> tuple[FieldProblem, ...]:
    """Look at the file without running it, at the layout and at the disk."""
    problems: list[FieldProblem] = []
    if not spec.file:
        hint = "Name the Python file that defines model, data and loss."
        problems.append(FieldProblem(field="file", message="no file is given.", hint=hint))
    else:
        problems += check_file(Path(spec.file).expanduser(), "file")
    problems += check_parallel(spec, ModelShape(family="custom"))
    if spec.distillation.teacher:
        message = "a custom training has no classes that a teacher could tell apart."
        hint = "Leave it empty, and put the teacher into the file's loss."
        problems.append(FieldProblem(field="distillation.teacher", message=message, hint=hint))
    problems += check_stream(spec.loading, spec.steps, can_stream=False)
    problems += check_space_of(spec, None)
    return tuple(problems)


def _rank_run(spec: CustomTrainingSpec, context: RunContext) -> None:
    from core.train.custom_learning import train_custom

    train_custom(spec, context)


def _code_folder(spec: CustomTrainingSpec) -> str:
    return str(Path(spec.file).expanduser().absolute().parent) if spec.file else ""


KIND = RunKind(
    spec=CustomTrainingSpec,
    title="Your own model and loss",
    summary="Trains what a Python file defines, a model, data and a loss, on any number of ranks.",
    group="train",
    icon="script",
    run=train_on_ranks,
    rank_run=_rank_run,
    ranks=ranks_of,
    spans_nodes=True,
    check=check,
    code_folder=_code_folder,
    examples=("custom.toml",),
)
