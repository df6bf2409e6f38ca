"""Ways in which a connection fails, told apart: a host that does not answer, and one that must not or will not be used.

Both are shown as a sentence with a remedy. The first heals by itself and is tried again; the second needs the user.
"""

from __future__ import annotations

from core.contracts.errors import EnvironmentProblem


class Unreachable(EnvironmentProblem):
    """Nothing answers, too late, or no more. Says nothing about what runs there; trying again may help."""


class Refused(EnvironmentProblem):
    """The host's key or the log-in was refused; trying again without the user does not help."""
