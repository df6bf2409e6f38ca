"""``pilothouse hosts`` as people and scripts use it, against a real SSH server: questions, JSON, exit codes, no hanging."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.fleet.worker_wheel import REQUIRED
from tests.helpers.ssh_server import SshServer, keygen, opened_ssh_server
from tests.helpers.wheelhouse import base_python, make_index

pytestmark = pytest.mark.timeout(150)
COMMAND = [sys.executable, "-P", "-m", "app.command", "hosts"]


def hosts(*words: str | Path, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the command without a terminal."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )


def hosts_json(*words: str | Path, code: int = 0) -> Any:
    done = hosts(*words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "user").mkdir()
    with opened_ssh_server(tmp_path) as one:
        yield one


def adding(server: SshServer, tmp_path: Path, name: str = "box") -> list[str | Path]:
    place = ["--address", "127.0.0.1", "--port", str(server.port), "--user", server.user]
    return ["add", name, *place, "--identity", server.identity, "--work-dir", tmp_path / "work 'folder'"]


def fingerprint(server: SshServer) -> str:
    public = server.folder / "host_ed25519.pub"
    done = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def test_an_unknown_key_is_shown_and_refused_without_a_terminal_and_trusted_with_yes(
    server: SshServer, tmp_path: Path
) -> None:
    refused = hosts(*adding(server, tmp_path))
    assert refused.returncode == 3
    assert fingerprint(server) in refused.stderr
    assert "--yes" in refused.stderr
    assert hosts_json("list") == []
    added = hosts(*adding(server, tmp_path), "--yes")
    assert added.returncode == 0, added.stderr
    assert fingerprint(server) in added.stderr
    (record,) = hosts_json("list")
    assert (record["name"], record["port"], record["work_dir"]) == ("box", server.port, str(tmp_path / "work 'folder'"))
    assert not (tmp_path / "user" / ".ssh" / "known_hosts").exists()
    again = hosts(*adding(server, tmp_path), "--yes")
    assert (again.returncode, "already" in again.stderr) == (2, True)
    assert "box" in hosts("list").stdout


def test_check_prints_findings_as_one_document(server: SshServer, tmp_path: Path) -> None:
    hosts(*adding(server, tmp_path), "--yes")
    report = hosts_json("check", "box")
    assert {*report} == {"host", "ok", "findings"}
    assert (report["host"], report["ok"]) == ("box", True)
    assert all({*finding} == {"level", "what", "remedy", "topic"} for finding in report["findings"])
    assert {finding["level"] for finding in report["findings"]} <= {"ok", "warning", "error"}
    planned = hosts_json("check", "box", "--spec", "stdlib-lm.toml", code=3)
    assert not planned["ok"]
    assert any("hosts install box" in finding["remedy"] for finding in planned["findings"])
    text = hosts("check", "box").stdout
    assert "box: ready" in text
    server.stop()
    off = hosts_json("check", "box", code=3)
    assert [(finding["level"], finding["topic"]) for finding in off["findings"]] == [("error", "reachable")]


def test_several_hosts_are_a_list_in_the_order_asked(server: SshServer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        hosts(*adding(server, tmp_path, name), "--yes")
    reports = hosts_json("check", "two", "one", "local")
    assert [report["host"] for report in reports] == ["two", "one", "local"]
    assert all("between" in {finding["topic"] for finding in report["findings"]} for report in reports)
    nobody = hosts("check", "nobody")
    assert (nobody.returncode, "'nobody'" in nobody.stderr) == (2, True)


def test_a_changed_key_is_refused_and_explained_also_with_yes(server: SshServer, tmp_path: Path) -> None:
    hosts(*adding(server, tmp_path), "--yes")
    server.stop()
    server.new_host_key()
    server.start()
    for words in (("check", "box", "--yes"), ("trust", "box", "--yes")):
        done = hosts(*words)
        assert done.returncode == 3
        assert "changed" in done.stdout + done.stderr


def test_a_secret_is_never_waited_for_without_a_terminal(server: SshServer, tmp_path: Path) -> None:
    locked = keygen(tmp_path / "locked", passphrase="correct horse")
    server.authorize(locked)
    server.identity = locked
    began = time.monotonic()
    done = hosts(*adding(server, tmp_path), "--yes", limit_s=40)
    assert done.returncode == 3
    assert "passphrase" in done.stderr.lower()
    assert time.monotonic() - began < 40


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, words: list[str | Path]) -> None:
        self.text = ""
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.execv(sys.executable, [*COMMAND, *map(str, words)])

    def expect(self, words: str, limit_s: float = 40.0) -> None:
        """Wait until it has printed something after what was expected before."""
        deadline = time.monotonic() + limit_s
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self._descriptor], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self._descriptor, 65536).decode(errors="replace")
                except OSError:
                    break
        assert words in self.text, self.text
        self.text = self.text.partition(words)[2]

    def type(self, line: str) -> None:
        os.write(self._descriptor, f"{line}\n".encode())

    def end(self) -> int:
        """Read to its end; return its exit status."""
        while True:
            try:
                if not os.read(self._descriptor, 65536):
                    break
            except OSError:
                break
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_key_and_passphrase_are_asked_on_the_terminal(server: SshServer, tmp_path: Path) -> None:
    locked = keygen(tmp_path / "locked", passphrase="correct horse")
    server.authorize(locked)
    server.identity = locked
    terminal = Terminal(adding(server, tmp_path))
    terminal.expect(fingerprint(server))
    terminal.expect("[y/N]")
    terminal.type("y")
    for passphrase in ("wrong", "correct horse"):
        terminal.expect("Passphrase of")
        terminal.expect(": ")
        terminal.type(passphrase)
        terminal.expect("Keep it")
        terminal.type("n")
    terminal.expect("Added box")
    assert "correct horse" not in terminal.text
    assert terminal.end() == 0


def test_no_is_no(server: SshServer, tmp_path: Path) -> None:
    terminal = Terminal(adding(server, tmp_path))
    terminal.expect("[y/N]")
    terminal.type("")
    assert terminal.end() == 3
    assert hosts_json("list") == []


def test_install_queue_and_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(tmp_path / "index", REQUIRED)
    with opened_ssh_server(tmp_path, more=f'SetEnv "UV_DEFAULT_INDEX={index}"') as server:
        hosts(*adding(server, tmp_path), "--yes")
        done = hosts("install", "box", "--managed", "--python", base_python(), limit_s=120)
        assert done.returncode == 0, done.stderr
        assert "Installing packages" in done.stderr
        (record,) = hosts_json("list")
        assert record["runtime"]["kind"] == "managed"
        assert hosts_json("check", "box", "--spec", "stdlib-lm.toml")["ok"]
        assert hosts_json("queue", "box") == []
        assert "not" in hosts("queue", "box").stdout.lower()
        assert hosts("queue", "box", "--move", "x", "first").returncode == 2
        assert hosts_json("remove", "box", "--runtime") == {"removed": "box"}
        assert not (tmp_path / "work 'folder'" / "runtimes").exists()
        assert hosts_json("list") == []


def test_ctrl_c_cancels_and_leaves_nothing(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", REQUIRED)
    with opened_ssh_server(tmp_path, more=f'SetEnv "UV_DEFAULT_INDEX={index}"') as server:
        hosts(*adding(server, tmp_path), "--yes")
        words = [*COMMAND, "install", "box", "--managed", "--python", str(base_python())]
        with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
            assert child.stderr is not None
            assert any("Making the environment" in line for line in iter(child.stderr.readline, ""))
            child.send_signal(signal.SIGINT)
            said = child.stderr.read()
            assert child.wait(60) == 130
    assert "Cancel" in said
    left = tmp_path / "work 'folder'" / "runtimes"
    assert not left.exists() or list(left.iterdir()) == []


def test_hosts_of_the_ssh_config_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host gpu1\n  HostName 192.0.2.7\n  User ada\n  Port 2222\nHost *.lab\n")
    found = hosts_json("list", "--config")
    assert [(host["alias"], host["hostname"], host["user"], host["port"]) for host in found] == [
        ("gpu1", "192.0.2.7", "ada", 2222)
    ]
