from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import app.__main__ as program
from core.contracts.errors import EnvironmentProblem

ROOT = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    command = [sys.executable, "-P", "-m", "app", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def test_a_start_is_light_and_loads_no_machine_learning(pilothouse_home):
    done = start("--quit-when-ready", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["machine_learning"] == []
    assert report["rss_bytes"] < 250e6
    assert 0 < report["painted_ms"] <= report["ready_ms"]
    assert "Traceback" not in done.stderr
    assert list((pilothouse_home / "crashes").glob("crash-*")) == []


def test_the_known_fatal_binding_is_refused(monkeypatch):
    import PySide6

    monkeypatch.setattr(PySide6, "__version_info__", (6, 12, 0, "", ""))
    monkeypatch.setattr(program.sys, "version_info", (3, 11, 9))
    with pytest.raises(EnvironmentProblem, match="6.12"):
        program.check_binding()
    monkeypatch.setattr(program.sys, "version_info", (3, 12, 0))
    program.check_binding()
