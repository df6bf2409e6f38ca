"""Environments on a host, made, used, damaged, repaired, upgraded and removed over a real SSH server with real uv and pip.

The packages come from an index on disk (``tests.helpers.wheelhouse``), so no network is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import FindingLevel, HostRecord, RuntimeRecord
from core.fleet.guarded import Guarded, run_guarded
from core.fleet.preflight import check_hosts
from core.fleet.runtimes import install, remove, repair, self_test
from core.fleet.worker_command import python_command
from core.fleet.worker_wheel import REQUIRED, worker_version
from tests.helpers.host_pool import Connections, Watching
from tests.helpers.ssh_server import SshServer, opened_ssh_server
from tests.helpers.waiting import wait_for
from tests.helpers.wheelhouse import base_python, make_index

pytestmark = pytest.mark.timeout(180)
MANAGED = RuntimeRecord(kind="managed", python=str(base_python()))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_index(tmp_path_factory.mktemp("index"), REQUIRED)


@pytest.fixture
def online(tmp_path: Path, index: str) -> Iterator[SshServer]:
    """A host whose package index is the one on disk."""
    with opened_ssh_server(tmp_path, more=f'SetEnv "UV_DEFAULT_INDEX={index}"') as server:
        yield server


@pytest.fixture
def offline(tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """A host that reaches no index, while this machine does."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", index)
    with opened_ssh_server(tmp_path, more="SetEnv UV_DEFAULT_INDEX=file:///nowhere/simple") as server:
        yield server


class Host:
    """One host of a test: its record as it is kept, and the connections to it."""

    def __init__(self, server: SshServer, folder: Path) -> None:
        self.work_dir = folder / "it's a work folder"
        self.record: HostRecord = server.record("box", work_dir=str(self.work_dir))
        self.pool = Connections({"box": self.record}, server.known_hosts, folder)

    def install(self, choice: RuntimeRecord, watcher: Watching | None = None) -> RuntimeRecord:
        self.record = install(self.pool, self.record, choice, watcher or Watching())
        return self.record.runtime

    def folders(self) -> list[str]:
        root = self.work_dir / "runtimes"
        return sorted(path.name for path in root.iterdir()) if root.is_dir() else []

    def levels(self) -> set[FindingLevel]:
        return {finding.level for finding in self_test(self.pool, self.record, Watching())}

    def processes(self) -> list[str]:
        """Return the processes that have the work folder in their command line."""
        found = subprocess.run(["pgrep", "-f", "--", str(self.work_dir)], capture_output=True, text=True, check=False)
        return found.stdout.split()


@pytest.fixture
def host(online: SshServer, tmp_path: Path) -> Iterator[Host]:
    one = Host(online, tmp_path)
    yield one
    one.pool.close()


@pytest.fixture
def cut_off(offline: SshServer, tmp_path: Path) -> Iterator[Host]:
    one = Host(offline, tmp_path)
    yield one
    one.pool.close()


def test_uv_makes_an_environment_that_works(host: Host) -> None:
    watcher = Watching()
    runtime = host.install(MANAGED, watcher)
    assert runtime.kind == "managed"
    assert runtime.worker_version == worker_version()
    assert runtime.checked is not None
    assert Path(runtime.python).is_relative_to(host.work_dir / "runtimes")
    assert len(host.folders()) == 1
    assert host.levels() == {FindingLevel.OK}
    assert watcher.stages[-1] == "Ready"
    assert any("pilothouse-worker==" in line for line in watcher.lines)
    (report,) = check_hosts(host.pool, [host.record], None, Watching())
    assert report.ok
    assert {one.topic: one.level for one in report.findings}["worker"] is FindingLevel.OK
    # The supervisor of a run starts in it: it complains of the run directory, not of a missing module.
    done = host.pool.link("box").run(python_command(runtime, ["-P", "-m", "core.cli.supervise", "/no/run", "1"]))
    assert b"ModuleNotFoundError" not in done.stderr


def test_a_host_without_internet_gets_its_packages_from_here(cut_off: Host) -> None:
    watcher = Watching()
    runtime = cut_off.install(MANAGED, watcher)
    assert any("Sending packages" in stage for stage in watcher.stages)
    assert cut_off.folders() == [Path(runtime.python).parents[1].name]


@pytest.mark.parametrize(
    ("stage", "line"),
    [("Copying uv to the host", ""), ("Making the environment", "Creating"), ("Installing packages", "Resolved")],
)
def test_cancel_leaves_nothing_half_done(host: Host, stage: str, line: str) -> None:
    with pytest.raises(Cancelled):
        host.install(MANAGED, Watching(stage, line))
    assert host.folders() == []
    assert host.processes() == []
    assert host.record.runtime.kind == "none"
    host.install(MANAGED)
    assert len(host.folders()) == 1


def test_a_connection_that_breaks_ends_the_work_on_the_host_and_leaves_nothing(host: Host, online: SshServer) -> None:
    half = host.work_dir / "half"
    half.mkdir(parents=True)
    command = Guarded(
        argv=["sh", "-c", "trap '' TERM HUP; echo started; sleep 1000 & exec sleep 1000", str(half)],
        stage="Working",
        undo=str(half),
    )

    class Cutting(Watching):
        def report(self, progress: object) -> None:
            if getattr(progress, "line", "") == "started":
                host.pool.link("box").close()

    with pytest.raises((EnvironmentProblem, Cancelled)):
        run_guarded(host.pool.link("box"), command, Cutting())
    wait_for(lambda: not half.exists(), "the half-made folder to go", 30)
    wait_for(lambda: host.processes() == [], "the command to end", 30)


def test_a_damaged_environment_is_told_and_repaired(host: Host) -> None:
    first = host.install(MANAGED)
    (damaged,) = Path(first.python).parents[1].glob("lib/python*/site-packages/msgspec/__init__.py")
    damaged.unlink()
    (report,) = check_hosts(host.pool, [host.record], None, Watching())
    broken = next(one for one in report.findings if one.topic == "python")
    assert (broken.level, not report.ok) == (FindingLevel.ERROR, True)
    assert "hosts install box" in broken.remedy
    host.record = repair(host.pool, host.record, Watching())
    assert host.record.runtime.python != first.python
    assert host.folders() == [Path(host.record.runtime.python).parents[1].name]
    again = repair(host.pool, host.record, Watching())
    assert again.runtime.python == host.record.runtime.python


def test_an_upgrade_leaves_a_run_its_environment_and_clears_it_away_later(host: Host) -> None:
    first = host.install(MANAGED)
    old = Path(first.python).parents[1].name
    run = subprocess.Popen([first.python, "-c", "import sys; sys.stdin.read(); import numpy"], stdin=subprocess.PIPE)
    try:
        second = host.install(MANAGED)
        assert second.python != first.python
        assert old in host.folders()
        with pytest.raises(EnvironmentProblem, match="still uses"):
            remove(host.pool, host.record, Watching())
        run.communicate(b"", timeout=30)
        # It imported from the old environment only now, after the upgrade.
        assert run.returncode == 0
    finally:
        run.kill()
        run.wait()
    third = host.install(MANAGED)
    assert host.folders() == [Path(third.python).parents[1].name]


def test_an_interpreters_folder_outlives_the_making_of_an_environment_and_a_way_back(cut_off: Host) -> None:
    python = RuntimeRecord(kind="interpreter", python=str(base_python()))
    beside = Path(cut_off.install(python).worker_dir)
    os.utime(beside, (0, 0))
    run = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(beside)},
    )
    try:
        cut_off.install(MANAGED)
        assert beside.name in cut_off.folders(), "it is old, but a run uses it"
        assert cut_off.install(python).worker_dir == str(beside)
    finally:
        run.communicate(b"", timeout=30)
    cut_off.install(python)
    assert cut_off.folders() == [beside.name]
    assert not (beside / "pilothouse-replaced").exists()


def test_runs_on_other_machines_and_waiting_jobs_keep_their_environment(tmp_path: Path, index: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    plain = tmp_path / "home"
    run = plain / "runs" / "20261124-digits-1a2b3c"
    run.mkdir(parents=True)
    squeue = tools / "squeue"
    with opened_ssh_server(
        tmp_path / "login", more=f'SetEnv "UV_DEFAULT_INDEX={index}" "PATH={tools}:{os.environ["PATH"]}"'
    ) as server:
        host = Host(server, tmp_path)
        host.work_dir = plain
        host.record = msgspec.structs.replace(host.record, work_dir=str(plain))
        try:
            old = Path(host.install(MANAGED).python).parents[1].name
            (run / "placement.json").write_text(f'{{"nodes": [{{"python": "{host.record.runtime.python}"}}]}}')
            (run / "supervisor.a.json").write_text("{}")
            host.install(MANAGED)
            assert old in host.folders(), "a run of another machine beats"
            (run / "exit.a.json").write_text("{}")
            (run / "job.sh").write_text(f"srun '{plain}/runtimes/{old}/bin/python' -P\n")
            squeue.write_text(f"#!/bin/sh\necho '{run}/job.sh'\n")
            squeue.chmod(0o755)
            host.install(MANAGED)
            assert old in host.folders(), "a job waits"
            with pytest.raises(EnvironmentProblem, match="still uses"):
                remove(host.pool, host.record, Watching())
            squeue.write_text("#!/bin/sh\n")
            host.install(MANAGED)
            assert len(host.folders()) == 1
        finally:
            host.pool.close()


def test_removing_takes_everything_of_ours_and_leaves_the_runs(host: Host) -> None:
    host.install(MANAGED)
    kept = host.work_dir / "runs" / "20261124-digits-1a2b3c"
    kept.mkdir(parents=True)
    record = remove(host.pool, host.record, Watching())
    assert record.runtime == RuntimeRecord()
    assert kept.is_dir()
    assert sorted(path.name for path in host.work_dir.iterdir()) in (["cache", "runs"], ["runs"])


def listing(folder: Path) -> dict[str, int]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in found}


def test_an_interpreter_of_the_user_is_used_and_not_touched(cut_off: Host, tmp_path: Path) -> None:
    """It lacks all packages; they are chosen here and lie beside it."""
    subprocess.run([base_python(), "-m", "venv", "--without-pip", tmp_path / "theirs"], check=True)
    before = listing(tmp_path / "theirs")
    theirs = tmp_path / "theirs" / "bin" / "python"
    choice = RuntimeRecord(
        kind="interpreter", python=str(theirs), prelude=("echo 'Loading modules ...'", "export LOADED='cuda 12'")
    )
    runtime = cut_off.install(choice)
    assert listing(tmp_path / "theirs") == before
    assert Path(runtime.worker_dir, "msgspec").is_dir()
    bare = subprocess.run([theirs, "-c", "import msgspec"], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in bare.stderr


def test_an_interpreter_that_has_everything_gets_only_the_worker_package(host: Host) -> None:
    python = Path(sys.prefix) / "bin" / "python"
    runtime = host.install(RuntimeRecord(kind="interpreter", python=str(python)))
    assert sorted(path.name for path in Path(runtime.worker_dir).iterdir() if path.suffix != ".dist-info") == [
        "core",
        "native",
        "resources",
    ]
    findings = self_test(host.pool, host.record, Watching())
    assert {one.topic for one in findings} == {"python", "torch", "collectives"}
    assert {one.level for one in findings} == {FindingLevel.OK}


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (RuntimeRecord(kind="interpreter", python="/no/python"), "does not start"),
        (RuntimeRecord(kind="interpreter", python="/bin/ls"), "does not start"),
        (RuntimeRecord(kind="interpreter"), "No interpreter was named"),
        (
            msgspec.structs.replace(MANAGED, extras=("no-such-package-at-all==1.0",)),
            "do not fit together or do not exist",
        ),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_leaves_nothing(host: Host, choice: RuntimeRecord, words: str) -> None:
    with pytest.raises(UserError, match=words):
        host.install(choice)
    assert host.folders() == []


def test_a_line_of_the_prelude_that_fails_is_named(host: Host) -> None:
    choice = msgspec.structs.replace(MANAGED, prelude=("export A=1", "module load cuda/99", "export B=2"))
    with pytest.raises(EnvironmentProblem, match="'module load cuda/99'"):
        host.install(choice)
    assert host.folders() == []


def test_a_work_folder_that_cannot_be_written_is_said_before_anything_is_copied(host: Host) -> None:
    host.record = msgspec.structs.replace(host.record, work_dir="/etc/passwd/below")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        host.install(MANAGED)
