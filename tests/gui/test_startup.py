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


def test_a_start_loads_nothing_of_ssh(pilothouse_home):
    """The window, its pages and the open workspace, with a host in the list that nobody has asked for yet."""
    program = (
        "import sys, importlib, pathlib\n"
        "from core.contracts.hosts import HostRecord\n"
        "from core.workspace.workspace import Workspace\n"
        "import app.__main__, app.views.home_page, app.views.hosts_page, app.views.train_page, app.views.run_detail_page\n"
        "workspace = Workspace.open(pathlib.Path(sys.argv[1]))\n"
        "workspace.fleet.add(HostRecord(name='lab-3', address='192.0.2.1'))\n"
        "follower = workspace.follow(lambda update: None)\n"
        "assert [record.name for record in workspace.fleet.hosts()] == ['lab-3']\n"
        "follower.close(); workspace.close()\n"
        "loaded = {'paramiko', 'cryptography', 'keyring'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(pilothouse_home)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
