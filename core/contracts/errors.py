"""The whole tree of errors, by who must act: the user, the machine's owner, or us.

``UserError`` and ``EnvironmentProblem`` are shown as one plain sentence and a remedy. Everything else that
escapes is a bug and becomes a crash report. ``Cancelled`` is silent.
"""

from __future__ import annotations

from dataclasses import dataclass


class PilothouseError(Exception):
    """A failure with a sentence for the user.

    Attributes:
        message: One sentence: what happened.
        hint: One sentence: what to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UserError(PilothouseError):
    """What was asked for cannot be done as asked; the hint says how to ask."""


class EnvironmentProblem(PilothouseError):
    """The machine is not as needed (disk, permission, missing program); the hint is the remedy."""


class Cancelled(PilothouseError):
    """The user cancelled; nothing is shown."""

    def __init__(self) -> None:
        super().__init__("Cancelled.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """One thing wrong with one field of a spec or a form.

    Attributes:
        field: Dotted path, such as ``optimizer.lr``; empty when it concerns the whole.
        message: What is wrong, as a sentence.
        hint: What to write instead; may be empty.
    """

    field: str
    message: str
    hint: str = ""

    def sentence(self) -> str:
        """Return the problem as one line for a terminal or a tooltip."""
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message} {self.hint}".strip()


class InvalidSpec(UserError):
    """A spec has one or more problems; all of them are listed at once."""

    def __init__(self, problems: tuple[FieldProblem, ...], source: str = "The spec") -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source} has {count}: " + " | ".join(p.sentence() for p in problems))
