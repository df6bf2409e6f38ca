"""Refuses versions of the Qt binding that are known to kill the process, before anything of Qt is imported.

Compares version texts only, so that the sentence reaches the user instead of a fatal interpreter error.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from core.contracts.errors import EnvironmentProblem

DISTRIBUTION = "PySide6-Essentials"
# Each void call through this release takes one reference from None; before Python 3.12, where None became immortal,
# that ends the process after a few thousand calls ("none_dealloc: deallocating None").
FATAL_RELEASE = "6.12.0"
FIRST_SAFE_PYTHON = (3, 12)


def binding_problem(pyside_version: str, python_version: tuple[int, int]) -> EnvironmentProblem | None:
    """Return what is wrong with this pair of versions, or None.

    Args:
        pyside_version: Such as ``6.11.3``.
        python_version: Major and minor, such as ``(3, 11)``.
    """
    if pyside_version != FATAL_RELEASE or python_version >= FIRST_SAFE_PYTHON:
        return None
    return EnvironmentProblem(
        f"PySide6 {pyside_version} ends the process on Python {python_version[0]}.{python_version[1]}.",
        f'Install another release: {sys.executable} -m pip install "{DISTRIBUTION}>=6.8,<6.12"',
    )


def check_binding() -> None:
    """Check the installed binding. Quick; imports nothing of Qt. Thread: any.

    Raises:
        EnvironmentProblem: When the binding is missing or its release is known to kill this Python.
    """
    try:
        installed = version(DISTRIBUTION)
    except PackageNotFoundError:
        raise EnvironmentProblem(
            "The window needs PySide6, which is not installed.",
            f'Install it: {sys.executable} -m pip install "{DISTRIBUTION}>=6.8,<6.12"',
        ) from None
    problem = binding_problem(installed, sys.version_info[:2])
    if problem is not None:
        raise problem
