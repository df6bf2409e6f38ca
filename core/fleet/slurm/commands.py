"""Runs Slurm's commands on a cluster's host and reads what they print, in the forms that old and new versions share.

Formats (``-o``) and ``scontrol -o`` are used, never ``--json`` alone: its form changes between versions and old ones
lack it. Knows nothing of runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.links import Completed, Link
from core.fleet.slurm import words

LIMIT_S = 60.0
_NOT_FOUND = 127
_FIELD = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z:/]*)=(\S*)")
_PLAIN = ("LC_ALL=C", "SLURM_TIME_FORMAT=standard")


@dataclass(frozen=True, slots=True)
class SlurmCommands:
    """Slurm's commands on one host. Thread-safe as its link is; blocks."""

    link: Link

    def ask(self, argv: Sequence[str], *, unset: Sequence[str] = (), cwd: str = "") -> Completed:
        """Run a command; its exit status is the caller's to judge.

        Args:
            argv: The command and its arguments, given as they are.
            unset: Environment variables that it must not see.
            cwd: Where it runs.

        Raises:
            EnvironmentProblem: The link is lost, or the host has no such command.
        """
        without = [word for name in unset for word in ("-u", name)]
        done = self.link.run(["env", *without, *_PLAIN, *argv], cwd=cwd, timeout_s=LIMIT_S)
        if done.code == _NOT_FOUND:
            raise EnvironmentProblem(
                f"There is no {argv[0]} on {self.link.name!r}.", "Name a login host of a Slurm cluster."
            )
        return done

    def text(self, argv: Sequence[str], *, unset: Sequence[str] = (), cwd: str = "") -> str:
        """Run a command that must succeed and return what it printed.

        Raises:
            UserError: Slurm refused; the sentence says why.
            EnvironmentProblem: The link is lost, there is no such command, or Slurm itself does not answer.
        """
        done = self.ask(argv, unset=unset, cwd=cwd)
        if done.code == 0:
            return decoded(done.stdout)
        sentence, is_ours = words.refused(decoded(done.stderr) + decoded(done.stdout))
        raise (UserError if is_ours else EnvironmentProblem)(sentence.message, sentence.hint)


def decoded(data: bytes) -> str:
    """Return what a command printed as text, whatever it holds."""
    return data.decode(errors="replace")


def fields_of(line: str) -> Mapping[str, str]:
    """Return the ``Name=value`` pairs of a line of ``scontrol -o``; the first of a name counts.

    What a user can put in (paths, comments) comes after the fields that matter, so that it cannot pose as one of them.
    """
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(line):
        found.setdefault(name, value)
    return found


def rows(text: str, columns: int) -> list[list[str]]:
    """Return the lines of a table with ``|`` between its columns; the last column may hold anything."""
    split = (line.split("|", columns - 1) for line in text.splitlines())
    return [[cell.strip() for cell in row] for row in split if len(row) == columns]
