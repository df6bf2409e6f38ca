"""The documents name what there is: every command, every kind of run, every linked file."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from core.cli.arguments import build_parser
from core.cli.output import ExitCode
from core.plugins.registry import registry

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def commands_of(parser: argparse.ArgumentParser) -> list[str]:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [
        " ".join([name, *rest])
        for action in actions
        for name, child in action.choices.items()
        for rest in ([[inner] for inner in commands_of(child)] or [[]])
    ]


def test_every_command_and_exit_code_is_in_the_guide() -> None:
    guide = (ROOT / "docs/guide/command-line.md").read_text(encoding="utf-8")
    for command in commands_of(build_parser()):
        assert command.split()[-1] in guide, f"pilothouse {command}"
    for code in ExitCode:
        assert f"| {code.value} |" in guide


def test_every_kind_of_run_is_in_the_guide() -> None:
    guide = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/guide").glob("*.md"))
    for kind in registry().kinds:
        assert kind in guide


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
