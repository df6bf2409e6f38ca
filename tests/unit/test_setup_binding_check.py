from __future__ import annotations

import sys

import pytest

from app import command
from core.cli.output import ExitCode
from core.contracts.errors import EnvironmentProblem
from core.settings import binding_check


@pytest.mark.parametrize(
    ("pyside", "python", "is_refused"),
    [
        ("6.12.0", (3, 11), True),
        ("6.12.0", (3, 12), False),
        ("6.12.0", (3, 14), False),
        ("6.11.3", (3, 11), False),
        ("6.12.1", (3, 11), False),
    ],
)
def test_only_the_fatal_pair_is_refused(pyside: str, python: tuple[int, int], is_refused: bool) -> None:
    problem = binding_check.binding_problem(pyside, python)
    assert (problem is not None) is is_refused


def test_the_refusal_names_both_versions_and_a_command() -> None:
    problem = binding_check.binding_problem("6.12.0", (3, 11))
    assert problem is not None
    assert "6.12.0" in problem.message
    assert "3.11" in problem.message
    assert "pip install" in problem.hint


def test_the_installed_binding_is_accepted() -> None:
    binding_check.check_binding()


def test_a_missing_binding_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding_check, "DISTRIBUTION", "pilothouse-no-such-binding")
    with pytest.raises(EnvironmentProblem, match="not installed"):
        binding_check.check_binding()


def test_the_command_says_so_before_it_imports_anything_of_qt(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding_check, "DISTRIBUTION", "pilothouse-no-such-binding")
        patch.setitem(sys.modules, "PySide6", None)
        patch.delitem(sys.modules, "app.__main__", raising=False)
        patch.setattr(sys, "argv", ["pilothouse"])
        assert command.main() == ExitCode.ENVIRONMENT
    assert "which is not installed" in capsys.readouterr().err
