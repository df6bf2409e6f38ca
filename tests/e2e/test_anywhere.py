"""The whole way in the real window: hosts from the ssh config, a runtime, a check, a distributed run, and what may befall it.

Two small computers with a real sshd, real torchrun and gloo between them, the shipped example script. The window is killed,
a cable is cut, a host crashes; the page says what happened, and the resumed run ends at the loss of an undisturbed one.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.contracts.ids import RunId, is_run_id
from core.contracts.runs import RunSummary
from core.contracts.states import RunState
from core.plugins.decode import encode_spec, read_spec
from core.settings.resources import examples_dir
from core.workspace.workspace import Workspace
from tests.helpers.host_lab import HostLab, opened_host_lab
from tests.helpers.waiting import wait_for
from tests.helpers.window_process import WindowProcess

pytestmark = pytest.mark.timeout(600)
STEPS = 120
ARGS = ("--steps", str(STEPS), "--save-every", "20", "--step-s", "0.25", "--checkpoints", "{checkpoints}")


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostLab]:
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with opened_host_lab(2) as lab:
        user = tmp_path / "user"
        (user / ".ssh").mkdir(parents=True, mode=0o700)
        shutil.copy(lab.ssh_config, user / ".ssh" / "config")
        monkeypatch.setenv("HOME", str(user))
        yield lab


@pytest.fixture
def open_window(tmp_path: Path) -> Iterator[Callable[[], WindowProcess]]:
    opened: list[WindowProcess] = []

    def open_one() -> WindowProcess:
        opened.append(WindowProcess(tmp_path / f"window-{len(opened)}.log"))
        return opened[-1]

    yield open_one
    for window in opened:
        if window.process.returncode is None:
            window.kill()


def _add_host(window: WindowProcess, name: str, button: str) -> None:
    window.click(button)
    window.choose("host_source", f"{name} in the ssh config")
    window.click("host_test")
    wait_for(lambda: window.shows("It works"), f"the test of {name} to succeed", 30)
    window.click("dialog_accept")
    wait_for(lambda: not window.ask("look", name="host_dialog")["found"], "the dialog to close", 30)


def _set_up(window: WindowProcess, name: str) -> None:
    window.choose("hosts_list", name)
    window.tab("host_tabs", "Runtime")
    window.click("runtime_first")
    window.click("runtime_own")
    window.type("runtime_python", sys.executable)
    window.click("dialog_accept")
    wait_for(lambda: window.ask("look", name="runtime_repair").get("enabled"), f"the runtime of {name}", 120)


def _the_run(home: Path) -> RunId | None:
    found = (
        [path.name for path in (home / "runs").iterdir() if is_run_id(path.name)] if (home / "runs").is_dir() else []
    )
    return RunId(found[0]) if found else None


def _summary(home: Path, run_id: RunId) -> RunSummary:
    workspace = Workspace.open(home)
    try:
        workspace.sync()
        return workspace.summary(run_id)
    finally:
        workspace.close()


def test_from_a_fresh_window_through_faults_to_the_same_loss(
    hosts: HostLab, pilothouse_home: Path, open_window: Callable[[], WindowProcess], tmp_path: Path
) -> None:
    example = read_spec(examples_dir() / "ddp-digits.toml")
    window = open_window()
    window.click("nav_hosts")
    _add_host(window, "h1", "hosts_first")
    _add_host(window, "h2", "hosts_add")
    for name in hosts.names:
        _set_up(window, name)
    window.tab("host_tabs", "Check")
    window.click("check_run" if window.ask("look", name="check_run")["found"] else "check_first")
    wait_for(lambda: window.ask("look", name="check_verdict")["found"], "the check's findings", 60)

    window.click("nav_train")
    window.click("example_ddp-digits.toml")
    window.type("field_args", "\n".join(ARGS))
    window.click("wizard_next")
    window.click("where_hosts")
    for name in hosts.names:
        window.click(f"pick_{name}")
    window.click("wizard_next")
    window.click("wizard_launch")
    run_id = wait_for(lambda: _the_run(pilothouse_home), "the run directory", 60)
    wait_for(lambda: window.shows("Running"), "the run's page to show it running", 120)
    window.tab("run_tabs", "Nodes")
    wait_for(lambda: window.shows("h1", "h2"), "both hosts on the page")

    window.kill()
    before = _summary(pilothouse_home, run_id).step or 0
    hosts.link("h2", up=False)
    again = open_window()
    again.click(f"live_run_{run_id}")
    hosts.link("h2", up=True)
    wait_for(lambda: (_summary(pilothouse_home, run_id).step or 0) > before + 10, "it to go on after the cut", 120)

    hosts.crash("h2")
    wait_for(lambda: _summary(pilothouse_home, run_id).state.is_terminal, "the loss of a host to end the run", 90)
    lost = _summary(pilothouse_home, run_id)
    assert lost.state in (RunState.FAILED, RunState.LOST)
    assert "h2" in lost.message
    assert 20 <= (lost.step or 0) < STEPS
    wait_for(lambda: again.shows(lost.message), "the page to say what happened")
    wait_for(lambda: not hosts.jobs("h1"), "no process to be left on the other host")

    hosts.start("h2")
    again.click("run_resume")
    wait_for(lambda: _summary(pilothouse_home, run_id).state is RunState.SUCCEEDED, "the resumed run to succeed", 180)
    again.process.terminate()
    again.close()

    workspace = Workspace.open(tmp_path / "undisturbed")
    try:
        for record in Workspace.open(pilothouse_home).fleet.hosts():
            workspace.fleet.add(record)
        spec = tmp_path / "spec.toml"
        spec.write_text(
            encode_spec(read_spec(pilothouse_home / "runs" / run_id / "spec.toml")).replace('"0.25"', '"0"')
        )
        undisturbed = workspace.launch_spec(read_spec(spec))
        assert workspace.wait(undisturbed).state is RunState.SUCCEEDED
        resumed = _summary(pilothouse_home, run_id)
        assert resumed.attempt == 2
        assert resumed.final["loss"] == workspace.summary(undisturbed).final["loss"]
    finally:
        workspace.close()
    assert example.name == "Distributed digits"
    for name in hosts.names:
        wait_for(lambda name=name: not hosts.jobs(name), f"no process to be left on {name}")
