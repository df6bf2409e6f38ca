"""What the documents say is so: links lead somewhere, named commands exist, and the worked example works."""

from __future__ import annotations

import re
import types
from pathlib import Path

import numpy as np
import pytest

from core.contracts.errors import UserError
from tests.helpers.recording_context import RecordingContext

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def fenced(text: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def example() -> types.ModuleType:
    module = types.ModuleType("line")
    source = fenced((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "python")
    exec(compile(source, "CONTRIBUTING.md", "exec"), module.__dict__)
    return module


def test_the_worked_example_fits_a_line(example: types.ModuleType, tmp_path: Path) -> None:
    data = tmp_path / "line.csv"
    x = np.linspace(-1, 1, 50)
    np.savetxt(data, np.column_stack([x, 3 * x + 0.5]), delimiter=",")
    spec = example.LineSpec(data=str(data), steps=300)
    context = RecordingContext(tmp_path / "home")
    assert example.KIND.check(spec) == ()
    example.KIND.run(spec, context)
    assert context.results["slope"] == pytest.approx(3, abs=0.01)
    assert context.results["offset"] == pytest.approx(0.5, abs=0.01)
    assert context.metrics[-1][1]["train/loss"] < context.metrics[0][1]["train/loss"]


def test_the_worked_example_names_its_faults(example: types.ModuleType, tmp_path: Path) -> None:
    (problem,) = example.KIND.check(example.LineSpec(data=str(tmp_path / "none.csv")))
    assert problem.field == "data"
    (tmp_path / "text.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match="two numeric columns"):
        example.KIND.run(example.LineSpec(data=str(tmp_path / "text.csv")), RecordingContext(tmp_path / "home"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_make_commands_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
    assert {first or second for first, second in named} <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_modules_exist(document: Path) -> None:
    named = set(re.findall(r"`((?:core|app|tests|packaging)/[\w/]+\.\w+)`", document.read_text(encoding="utf-8")))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_packages_exist(document: Path) -> None:
    named = set(re.findall(r"`((?:core|app)(?:\.\w+)+)`", document.read_text(encoding="utf-8")))
    paths = {name: ROOT / name.replace(".", "/") for name in named}
    assert [name for name, path in paths.items() if not (path.is_dir() or path.with_suffix(".py").exists())] == []
