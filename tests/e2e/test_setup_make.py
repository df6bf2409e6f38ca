"""Runs the real Makefile and bootstrap on a tiny project: first start, second start, interruption, damage, move."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1.0"
"""

# A build backend that needs nothing from a package index: it makes an editable wheel by hand.
BACKEND = """
import pathlib, zipfile

def _wheel(folder, files):
    name = "tiny-1.0-py3-none-any.whl"
    meta = {
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: tiny\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as archive:
        for path, text in {**files, **meta}.items():
            archive.writestr(path, text)
        record = "".join(f"{path},,{len(text)}\\n" for path, text in {**files, **meta}.items())
        archive.writestr("tiny-1.0.dist-info/RECORD", record + "tiny-1.0.dist-info/RECORD,,\\n")
    return name

def build_editable(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, {"tiny.pth": str(pathlib.Path.cwd())})

def build_wheel(folder, config_settings=None, metadata_directory=None):
    return build_editable(folder)
"""

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder, with spaces"
    (folder / "app").mkdir(parents=True)
    (folder / "core").mkdir()
    (folder / "app" / "__init__.py").touch()
    (folder / "core" / "__init__.py").touch()
    (folder / "app" / "__main__.py").write_text("import sys, core\nprint('started', *sys.argv[1:])\n")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "constraints.txt").touch()
    (folder / "backend.py").write_text(BACKEND)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "packaging", folder / "packaging", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PIP_", "PYTHON"))}
    environment |= {"PIP_NO_INDEX": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_make_run_from_nothing_to_a_moved_folder(project: Path) -> None:
    first = make(project, "run", "ARGS=--once")
    assert first.returncode == 0, first.stderr
    assert "started --once" in first.stdout
    assert list((project / "app" / "__pycache__").glob("*.pyc")), "byte code must be written"

    second = make(project, "run")
    assert second.stdout == "started\n", "nothing but the program may speak on the second start"

    (project / "packaging" / "bootstrap.py").touch()
    touched = make(project, "run")
    assert touched.stdout == "started\n", "a newer date alone must not install anything"

    info = next((project / ".venv").rglob("tiny-1.0.dist-info"))
    (info.parent / "tiny.pth").unlink()
    assert make(project, "run").returncode != 0
    repaired = make(project, "repair")
    assert "Installing again: tiny-1.0" in repaired.stdout, repaired.stderr
    assert make(project, "run").stdout == "started\n"

    (project / ".venv" / ".installing").touch()
    (project / ".venv" / ".stamp-run").unlink()
    (info / "RECORD").unlink()
    resumed = make(project, "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "Installing again: tiny-1.0" in resumed.stdout

    moved = project.rename(project.with_name("moved here"))
    after_move = make(moved, "run")
    assert after_move.returncode == 0, after_move.stderr
    assert after_move.stdout.endswith("started\n")


def test_no_network_is_one_sentence_with_the_remedy(project: Path) -> None:
    needy = PYPROJECT.replace("requires = []", 'requires = ["pilothouse-needs-the-network"]')
    (project / "pyproject.toml").write_text(needy)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PIP_", "PYTHON"))}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    answer = subprocess.run(["make", "run"], cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert "The package index cannot be reached." in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (project / ".venv" / ".stamp-run").exists()
