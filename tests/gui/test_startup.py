from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
