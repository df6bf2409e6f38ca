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
from core.settings.home import Home
from core.settings.hosts_file import HostsFile
from core.workspace.workspace import Workspace
from tests.helpers.host_lab import HostLab, opened_host_lab
from tests.helpers.waiting import wait_for
from tests.helpers.window_process import WindowProcess, opened_windows

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
    with opened_windows(tmp_path) as opener:
        yield opener


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


def _left(hosts: HostLab, name: str, run_id: RunId) -> list[str]:
    """Return the words of the run's processes on a host."""
    return [words for words in hosts.jobs(name).values() if run_id in words]


def _summary(home: Path, run_id: RunId) -> RunSummary:
    workspace = Workspace.open(home)
    try:
        workspace.sync()
        return workspace.summary(run_id)
    finally:
        workspace.close()


def _launch(window: WindowProcess, hosts: HostLab, home: Path) -> RunId:
    """Go through the wizard to a run of two ranks on each host, and to its page."""
    window.click("nav_train")
    window.click("example_ddp-digits.toml")
    window.type("field_args", "\n".join(ARGS))
    window.click("wizard_next")
    window.click("where_hosts")
    for name in hosts.names:
        window.click(f"pick_{name}")
    window.click("wizard_next")
    window.click("wizard_launch")
    run_id = wait_for(lambda: _the_run(home), "the run directory", 60)
    wait_for(lambda: window.shows("Running"), "the run's page to show it running", 120)
    window.tab("run_tabs", "Nodes")
    wait_for(lambda: window.shows("h1", "h2"), "both hosts on the page")
    return run_id


def _undisturbed(home: Path, run_id: RunId, folder: Path) -> RunSummary:
    """Run the same without faults and return how it ended; the hosts and their runtimes are those of ``home``."""
    spec = folder / "spec.toml"
    text = encode_spec(read_spec(home / "runs" / run_id / "spec.toml"))
    spec.write_text(text.replace('"0.25"', '"0"'))
    workspace = Workspace.open(folder / "undisturbed")
    try:
        for record in HostsFile(Home(home).hosts_file).hosts():
            workspace.fleet.add(record)
        summary = workspace.wait(workspace.launch_spec(read_spec(spec)))
        assert summary.state is RunState.SUCCEEDED, summary.message
        return summary
    finally:
        workspace.close()


def test_from_a_fresh_window_through_faults_to_the_same_loss(
    hosts: HostLab, pilothouse_home: Path, open_window: Callable[[], WindowProcess], tmp_path: Path
) -> None:
    window = open_window()
    window.click("nav_hosts")
    _add_host(window, "h1", "hosts_first")
    _add_host(window, "h2", "hosts_add")
    for name in hosts.names:
        _set_up(window, name)
    window.tab("host_tabs", "Check")
    window.click("check_run" if window.ask("look", name="check_run")["found"] else "check_first")
    wait_for(lambda: window.ask("look", name="check_verdict")["found"], "the check's findings", 60)

    run_id = _launch(window, hosts, pilothouse_home)
    window.kill()
    before = _summary(pilothouse_home, run_id).step or 0
    hosts.link("h2", up=False)
    again = open_window()
    again.click(f"live_run_{run_id}")
    hosts.link("h2", up=True)
    wait_for(lambda: (_summary(pilothouse_home, run_id).step or 0) > max(before, 40), "it to go on after the cut", 120)

    hosts.crash("h2")
    wait_for(lambda: _summary(pilothouse_home, run_id).state.is_terminal, "the loss of a host to end the run", 90)
    lost = _summary(pilothouse_home, run_id)
    assert lost.state in (RunState.FAILED, RunState.LOST)
    assert "h2" in lost.message
    assert 40 <= (lost.step or 0) < STEPS
    wait_for(lambda: again.shows(lost.message), "the page to say what happened")
    wait_for(lambda: not _left(hosts, "h1", run_id), "no process to be left on the other host")

    hosts.start("h2")
    again.click("run_resume")
    wait_for(lambda: _summary(pilothouse_home, run_id).state is RunState.SUCCEEDED, "the resumed run to succeed", 180)
    again.process.terminate()
    again.close()

    resumed = _summary(pilothouse_home, run_id)
    assert resumed.attempt == 2
    losses = {key: value for key, value in resumed.final.items() if key.endswith("loss")}
    assert losses
    undisturbed = _undisturbed(pilothouse_home, run_id, tmp_path)
    assert losses == {key: undisturbed.final[key] for key in losses}
    for name in hosts.names:
        wait_for(lambda name=name: not _left(hosts, name, run_id), f"no process to be left on {name}")
