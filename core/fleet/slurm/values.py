"""Which values may stand in an ``#SBATCH`` line: checked field by field, so that none can add a line, an option or a word.

Slurm reads those lines with rules of its own (quotes, backslashes, ``#`` for comments, ``%`` in file names); a value
that fits the pattern of its field means the same under all of them. Paths are quoted, for they may hold nearly anything.
"""

from __future__ import annotations

import re

from core.contracts.clusters import SlurmSpec
from core.contracts.errors import FieldProblem, InvalidSpec, UserError

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*"
_PATTERNS: dict[str, tuple[str, str]] = {
    "partition": (rf"{_NAME}(,{_NAME})*", "Give the name of a partition, such as gpu, or several with commas."),
    "account": (_NAME, "Give the name of an account, such as physics."),
    "qos": (rf"{_NAME}(,{_NAME})*", "Give the name of a quality of service, such as long."),
    "time_limit": (
        r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}|UNLIMITED|INFINITE",
        "Write minutes (30), hours (4:00:00) or days (2-00:00:00).",
    ),
    "gres": (r"[A-Za-z0-9_.+-]+(:[A-Za-z0-9_.+-]+)*(,[A-Za-z0-9_.+-]+(:[A-Za-z0-9_.+-]+)*)*", "Write gpu:4."),
    "constraint": (r"[A-Za-z0-9_.,:=+&|*()\[\]-]+", "Write features joined by & or |, such as a100&nvlink."),
    "memory": (r"\d+[KMGT]?", "Write a number and K, M, G or T, such as 64G."),
}
_OPTION = re.compile(r"--[a-z][a-z-]*(=[A-Za-z0-9_.,:=+&|*()\[\]@%/-]*)?")
_OWN_OPTIONS = frozenset(
    {
        "account", "array", "chdir", "constraint", "cpus-per-task", "error", "export", "gres", "input", "job-name", "mem",
        "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition", "qos",
        "requeue", "signal", "time", "wait", "wrap", "test-only", "help", "usage", "version",
    }
)  # fmt: skip
"""Options that we write ourselves, and those after which no job of ours would come of it."""


def slurm_problems(spec: SlurmSpec) -> tuple[FieldProblem, ...]:
    """Return what is wrong with what a job asks of Slurm, all of it at once; asks no cluster."""
    problems: list[FieldProblem] = []
    for name, (pattern, hint) in _PATTERNS.items():
        value = str(getattr(spec, name))
        if value and re.fullmatch(pattern, value, re.ASCII) is None:
            problems.append(_problem(name, f"{value!r} cannot be given to Slurm.", hint))
    for option in spec.options:
        problems += _option_problems(option)
    if spec.requeues and spec.time_limit and not spec.warn_s:
        message = "without a warning nothing is saved when the time limit comes."
        problems.append(_problem("warn_s", message, "Set a warning of 60 s or more, or no requeues."))
    return tuple(problems)


def check_slurm(spec: SlurmSpec) -> None:
    """Raise ``InvalidSpec`` with every problem when something cannot be given to Slurm."""
    if problems := slurm_problems(spec):
        raise InvalidSpec(problems, "What is asked of Slurm")


def quoted(text: str, what: str) -> str:
    """Return text as one word of an ``#SBATCH`` line.

    Raises:
        UserError: It holds a line break or another control character, which such a line cannot carry.
    """
    if any(not letter.isprintable() for letter in text):
        raise UserError(
            f"{what} {text!r} holds a character that Slurm's scripts cannot carry.", "Choose a folder without it."
        )
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]+", text, re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def file_pattern(path: str, pattern: str) -> str:
    """Return the quoted file name ``path/pattern``, where only ``pattern`` may hold Slurm's own ``%`` letters.

    Raises:
        UserError: The path holds a backslash, which Slurm takes for a mark of its own, or a control character.
    """
    if "\\" in path:
        raise UserError(
            f"The folder {path!r} holds a backslash, which Slurm takes for a mark of its own.",
            "Choose a work folder without it.",
        )
    return quoted(f"{path.replace('%', '%%')}/{pattern}", "The folder")


def job_name(text: str) -> str:
    """Return a run's name as the name of a job: letters, digits, ``.``, ``_`` and ``-``, at most 60."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "pilothouse"


def _problem(name: str, message: str, hint: str) -> FieldProblem:
    return FieldProblem(field=f"launch.slurm.{name}", message=message, hint=hint)


def _option_problems(option: str) -> list[FieldProblem]:
    if _OPTION.fullmatch(option) is None:
        message = f"{option!r} is no option of sbatch in the form --name=value."
        return [_problem("options", message, "Write one option a line, such as --exclude=node7.")]
    name = option.removeprefix("--").partition("=")[0]
    if name in _OWN_OPTIONS:
        return [_problem("options", f"--{name} is set by Pilothouse.", "Use the field of its own, or leave it out.")]
    return []
