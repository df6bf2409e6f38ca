"""Each import contract really refuses what it is there to refuse, shown on a copy of the tree with one bad import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BAD_IMPORTS = [
    ("core/jobs/bad.py", "import PySide6.QtCore", "The core knows no window"),
    ("core/train/bad.py", "import core.infer", "The core's layers"),
    ("core/runlog/bad.py", "import core.jobs", "The core's layers"),
    ("core/newthing/__init__.py", "", "The core's layers"),
    ("app/views/bad.py", "import subprocess", "Views reach the core through its contracts only"),
    ("app/views/bad.py", "import core.workspace", "Views reach the core through its contracts only"),
    ("app/viewmodels/bad.py", "import app.controllers", "The window's layers"),
    ("app/controllers/bad.py", "def f() -> None:\n    import torch", "The window's process loads no machine-learning"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as run; run()"
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy_of_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in ("app", "core"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_tree_keeps_all_contracts(copy_of_tree: Path) -> None:
    answer = lint(copy_of_tree)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(("path", "text", "contract"), BAD_IMPORTS, ids=lambda value: str(value)[:40])
def test_a_bad_import_is_refused(copy_of_tree: Path, path: str, text: str, contract: str) -> None:
    bad = copy_of_tree / path
    is_new_folder = not bad.parent.exists()
    bad.parent.mkdir(exist_ok=True)
    bad.write_text(f'"""Bad."""\n{text}\n')
    try:
        answer = lint(copy_of_tree)
    finally:
        bad.unlink()
        if is_new_folder:
            bad.parent.rmdir()
    assert answer.returncode != 0
    broken = [line for line in answer.stdout.splitlines() if "BROKEN" in line and line.startswith(contract)]
    assert len(broken) == 1, answer.stdout
