"""Mirrors over hosts that freeze, lose their cable for a while, or restart their SSH server: byte for byte in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.contracts.hosts import LinkState
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.runlog.layout import RunLayout
from tests.helpers.host_lab import wait_out
from tests.helpers.remote_lab import RemoteLab, opened_remote_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteLab]:
    with opened_remote_lab(tmp_path, monkeypatch, 1) as found:
        yield found


def _link(lab: RemoteLab, run_id: RunId) -> dict[str, object]:
    return json.loads(RunLayout(lab.run_dir(run_id)).link("h1").read_bytes())


def _frozen(lab: RemoteLab, run_id: RunId) -> None:
    lab.hosts.freeze("h1")
    wait_for(lambda: not _link(lab, run_id)["is_reachable"], "the silence to be noted", 40)
    wait_for(
        lambda: lab.workspace.fleet.status("h1").state is not LinkState.ONLINE, "the connection to be let go of", 30
    )
    lab.hosts.thaw("h1")


def _short_cut(lab: RemoteLab, run_id: RunId) -> None:
    lab.hosts.link("h1", up=False)
    wait_out(2.0)
    lab.hosts.link("h1", up=True)
    assert _link(lab, run_id)["is_reachable"], "two seconds are no silence"


def _server_restarted(lab: RemoteLab, run_id: RunId) -> None:
    contact = _link(lab, run_id)["last_contact"]
    lab.hosts.sshd("h1", on=False)
    lab.hosts.end_sessions("h1")
    wait_for(lambda: not _link(lab, run_id)["is_reachable"], "the loss to be noted", 40)
    assert _link(lab, run_id)["message"]
    assert _link(lab, run_id)["last_contact"] >= contact  # pyright: ignore[reportOperatorIssue]
    lab.hosts.sshd("h1", on=True)


@pytest.mark.parametrize("fault", [_frozen, _short_cut, _server_restarted], ids=lambda fault: fault.__name__.strip("_"))
def test_after_the_fault_all_is_here(lab: RemoteLab, fault: Callable[[RemoteLab, RunId], None]) -> None:
    run_id = lab.launch("h1", steps=100_000, step_s=0.01, launch={"stop_grace_s": 10.0})
    lab.at_step(run_id, 20)
    fault(lab, run_id)
    step = lab.updated(run_id).step or 0
    wait_for(lambda: (lab.updated(run_id).step or 0) > step + 20, "the run to be followed again", 90)
    assert lab.updated(run_id).silent_since is None
    lab.workspace.stop(run_id)
    assert lab.workspace.wait(run_id).state is RunState.STOPPED
    wait_for(lambda: _link(lab, run_id)["is_complete"], "the mirror to be complete", 60)
    assert lab.is_same("h1", run_id, "h1")
