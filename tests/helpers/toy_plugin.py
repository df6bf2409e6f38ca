"""Installs the toy kind as a third party would: a distribution with an entry point on the module path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from core.plugins.registry import registry

_TOY_FOLDER = Path(__file__).parent / "toy"


def install_toy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``test.toy`` and ``test.valley`` known to this process and to every process started from it."""
    info = folder / "pilothouse_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pilothouse-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pilothouse.kinds]\ntoy = toy_kind\nvalley = valley_kind\n")
    added = [str(folder), str(_TOY_FOLDER)]
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*added, *([inherited] if inherited else [])]))
    for path in reversed(added):
        monkeypatch.syspath_prepend(path)
    registry.cache_clear()
    monkeypatch.setattr(sys, "path_importer_cache", {})
