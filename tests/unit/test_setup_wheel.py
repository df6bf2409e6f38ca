"""An installed package holds every file that the program reads from beside its code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_resources_migrations_and_the_probe(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("app", "core", "native", "resources"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    folders = ("core/history/migrations", "native", "resources")
    files = [path for folder in folders for path in (source / folder).rglob("*") if path.is_file()]
    missing = [str(path.relative_to(source)) for path in files if path.relative_to(source).as_posix() not in packed]
    assert missing == []
