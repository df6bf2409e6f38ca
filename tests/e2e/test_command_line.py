"""The command line as scripts use it: real processes, one JSON document on stdout, exit codes, bad input."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.ids import RunId
from core.jobs.processes import marked_processes
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for


class CommandLine:
    """Runs ``pilothouse`` in child processes on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "app.command", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.home.parent)

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def runs(self) -> list[RunId]:
        return [RunId(path.name) for path in (self.home / "runs").iterdir()] if (self.home / "runs").exists() else []


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    install_toy(tmp_path / "plugin", monkeypatch)
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path / "hömé with spaces"))
    line = CommandLine(tmp_path / "hömé with spaces")
    yield line
    for run_id in line.runs():
        for pid in marked_processes(run_id):
            os.kill(pid, signal.SIGKILL)


def spec_file(folder: Path, text: str) -> Path:
    path = folder / 'it\'s a "spec".toml'
    path.write_text(f'kind = "test.toy"\n{text}')
    return path


def test_run_follow_show_list_logs_export(cli: CommandLine, tmp_path: Path) -> None:
    followed = cli.json("run", spec_file(tmp_path, "steps = 4\n"), "--follow")
    assert followed["state"] == "succeeded"
    assert followed["final"]["toy/final"] == pytest.approx(2.44140625)
    shown = cli.json("runs", "show", followed["run_id"])
    assert set(shown) >= {"run_id", "state", "message", "hint", "started", "ended", "final", "artifacts", "parent"}
    assert shown["parent"] is None
    assert [artifact["name"] for artifact in shown["artifacts"]] == ["value.txt"]
    assert shown["started"] < shown["ended"]
    assert [run["run_id"] for run in cli.json("runs", "list")] == [shown["run_id"]]
    assert "toy starts at 0" in cli.json("runs", "logs", shown["run_id"])["text"]
    assert cli("runs", "logs", shown["run_id"]).stdout == "toy starts at 0\n"
    target = tmp_path / "out" / "curves.csv"
    assert cli.json("runs", "export", shown["run_id"], "--output", target)["path"] == str(target)
    assert len(target.read_text().splitlines()) == 5
    for text in ("list", "show"):
        assert shown["run_id"] in cli("runs", text, *([shown["run_id"]] if text == "show" else [])).stdout


def test_run_returns_at_once_stop_resume_delete_restore(cli: CommandLine, tmp_path: Path) -> None:
    launched = cli.json("run", spec_file(tmp_path, "endless = true\nstep_s = 0.02\n"))
    assert Path(launched["run_dir"]).is_dir()
    run_id = launched["run_id"]
    wait_for(lambda: cli.json("runs", "show", run_id)["step"], "the first step")
    assert "Stop it first" in cli.json("runs", "delete", run_id, code=2)["error"]["hint"]
    assert cli.json("runs", "stop", run_id, "--follow")["state"] == "stopped"
    assert cli.json("runs", "stop", run_id, code=2)["error"]["message"].endswith("has already ended (stopped).")
    resumed = cli.json("runs", "resume", run_id)
    assert resumed["state"] in {"queued", "preparing", "running"}
    wait_for(lambda: cli.json("runs", "show", run_id)["attempt"] == 2, "the second attempt")
    cli.json("runs", "stop", run_id, "--follow")
    cli.json("runs", "delete", run_id)
    assert cli.json("runs", "list") == []
    assert "Only deleted runs" in cli.json("runs", "purge", "..", code=2)["error"]["hint"]
    cli.json("runs", "restore", run_id)
    assert [run["run_id"] for run in cli.json("runs", "list")] == [run_id]


def test_a_failed_run_has_its_sentence_and_exit_code(cli: CommandLine, tmp_path: Path) -> None:
    failed = cli.json("run", spec_file(tmp_path, "raise_at = 1\n"), "--follow", code=1)
    assert (failed["state"], failed["message"]) == ("failed", "The toy was told to fail.")
    assert failed["hint"] == "Tell it not to."


def test_rebuild_gives_the_same_history(cli: CommandLine, tmp_path: Path) -> None:
    for steps in (1, 3):
        cli.json("run", spec_file(tmp_path, f"steps = {steps}\n"), "--follow")
    before = cli.json("runs", "list")
    assert cli.json("runs", "rebuild") == {"runs": 2}
    assert cli.json("runs", "list") == before


def test_a_corrupt_database_is_set_aside_and_rebuilt(cli: CommandLine, tmp_path: Path) -> None:
    run_id = cli.json("run", spec_file(tmp_path, "steps = 2\n"), "--follow")["run_id"]
    database = cli.home / "history.sqlite"
    for leftover in cli.home.glob("history.sqlite-*"):
        leftover.unlink()
    database.write_bytes(b"this is no database" * 1000)
    done = cli("runs", "list", "--json")
    assert [run["run_id"] for run in json.loads(done.stdout)] == [run_id]
    assert "set aside" in done.stderr
    assert list(cli.home.glob("history.corrupt-*"))


def test_a_newer_database_and_a_newer_home_are_left_alone(cli: CommandLine) -> None:
    assert cli.json("runs", "list") == []
    with sqlite3.connect(cli.home / "history.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.close()
    assert "newer Pilothouse" in cli.json("runs", "list", code=3)["error"]["message"]
    (cli.home / "home.json").write_text('{"version": 99}')
    error = cli.json("runs", "list", code=3)["error"]
    assert "newer Pilothouse" in error["message"]
    assert "Upgrade" in error["hint"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz = 3\n", "stepz: is not a known field. Did you mean 'steps'?"),
        ('steps = "3"\n', "steps: must be a whole number"),
        ("steps = \n", "not valid TOML"),
    ],
)
def test_bad_specs_are_explained(cli: CommandLine, tmp_path: Path, text: str, words: str) -> None:
    error = cli.json("run", spec_file(tmp_path, text), code=2)["error"]
    assert words in error["message"]
    assert error["problems"]
    assert cli.runs() == []


def test_wrong_usage_and_unknown_runs(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("runs", "fly").returncode == 2
    assert "cannot be read" in cli.json("run", tmp_path / "absent.toml", code=2)["error"]["message"]
    assert "There is no run" in cli.json("runs", "show", "nonsense", code=2)["error"]["message"]
    assert cli("--version").stdout.startswith("pilothouse ")


def test_a_home_that_is_a_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path / "file"))
    done = CommandLine(tmp_path / "file")("runs", "list")
    assert done.returncode == 3
    assert "cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_loads_no_window_and_no_heavy_library(cli: CommandLine) -> None:
    code = (
        "import sys; sys.argv = ['pilothouse', 'runs', 'list', '--json']\n"
        "from app.command import main; main()\n"
        "heavy = {'PySide6', 'torch', 'pyqtgraph', 'onnxruntime', 'openvino', 'transformers', 'sklearn', 'alembic.command'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    cli.json("runs", "list")
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_hardware_as_json(cli: CommandLine) -> None:
    found = cli.json("hardware")
    assert found["cpu"]["logical_cores"] == os.cpu_count()
    assert found["telemetry"]["memory.used_bytes"] > 0


def test_odd_run_directories_are_listed_and_what_cannot_be_read_is_a_sentence(cli: CommandLine) -> None:
    cli.json("runs", "list")
    run_dir = cli.home / "runs" / "20260101-000000-odd-abcdef"
    (run_dir / "stdout.local.log").mkdir(parents=True)
    (run_dir / "spec.toml").write_text('kind = "test.toy"\ntags = 5\n')
    assert [run["tags"] for run in cli.json("runs", "list")] == [[]]
    assert "cannot be used: Is a directory" in cli.json("runs", "logs", run_dir.name, code=3)["error"]["message"]
