"""Real torchrun over two supervisors on this machine: the same losses after a stop, and faults that stay bounded."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from core.contracts.events import AttemptEvent, CheckpointEvent
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.plugins.decode import decode_spec
from core.settings.resources import examples_dir
from tests.helpers.node_lab import NodeLab, opened_nodes
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(400)
LIMIT_S = 180.0


def digits(steps: int, *, step_s: float = 0.0, **launch: object) -> RunSpec:
    args = ["--steps", str(steps), "--save-every", "10", "--checkpoints", "{checkpoints}", "--step-s", str(step_s)]
    return decode_spec(
        {
            "kind": "train.script",
            "name": "digits",
            "script": str(examples_dir() / "scripts" / "ddp_digits.py"),
            "launcher": "torchrun",
            "device": "cpu",
            "args": args,
            "launch": {"threads": 1, "peer_limit_s": 20.0, **launch},
        }
    )


def ranks_of(lab: NodeLab, node: str) -> list[int]:
    """Return the processes that torchrun started for a node."""
    return [
        pid for pid in lab.pids(node) if "ddp_digits.py" in _words(pid) and "torch.distributed.run" not in _words(pid)
    ]


def agent_of(lab: NodeLab, node: str) -> int:
    (agent,) = (pid for pid in lab.pids(node) if "torch.distributed.run" in _words(pid))
    return agent


def _words(pid: int) -> list[str]:
    try:
        return [Path(word).name for word in psutil.Process(pid).cmdline()]
    except psutil.Error:
        return []


def test_two_nodes_stop_together_and_resume_with_the_losses_of_an_undisturbed_run(tmp_path: Path) -> None:
    with opened_nodes(tmp_path / "whole", digits(60), processes=1) as whole:
        whole.start()
        assert whole.ended("a", LIMIT_S).state is RunState.SUCCEEDED, whole.output("a")
        expected = whole.curve("a", "train/loss")
        assert [step for step, _ in expected] == list(range(1, 61))
        whole.no_process_left()
    with opened_nodes(tmp_path / "cut", digits(60, step_s=0.05), processes=1) as lab:
        lab.start()
        lab.at_step("a", 15, LIMIT_S)
        lab.request_stop("b")
        assert lab.ended("a", 60).state is RunState.STOPPED
        assert lab.ended("b", 60).state is RunState.STOPPED
        lab.no_process_left()
        (lab.layout("a").checkpoints / "step-00000050.pt").write_bytes(b"damaged on the disk")
        lab.resume()
        assert lab.ended("a", LIMIT_S).state is RunState.SUCCEEDED, lab.output("a")
        assert "step-00000050.pt is passed over" in lab.output("a")
        assert dict(lab.curve("a", "train/loss")) == dict(expected), "bit for bit the same"
        attempts = [event for event in lab.events("a") if isinstance(event, AttemptEvent) and event.attempt == 2]
        saved = [event for event in lab.events("a") if isinstance(event, CheckpointEvent) and not event.removed]
        assert [event.resumed_from_step for event in attempts] == [next(e.step for e in saved if e.step >= 15)]
        assert [step for step, _ in lab.curve("b", "step_time_s")][-1] == 60, "every rank reports"
        assert lab.layout("b").stdout_index("b").read_text().split()[-1] == str(len(lab.output("b").encode()))


def test_kill_9_of_a_rank_names_it_and_leaves_nothing_on_either_node(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, digits(100_000), processes=2) as lab:
        lab.start()
        lab.at_step("b", 3, LIMIT_S)
        begins = "[rank0]: rank 0 of 4 begins with step 1"
        wait_for(lambda: begins in lab.output("a").splitlines(), "the first words of rank 0")
        os.kill(ranks_of(lab, "b")[0], signal.SIGKILL)
        standing = lab.ended("a", 60)
        assert standing.state is RunState.FAILED
        assert "host host-b" in standing.message
        assert "SIGKILL" in standing.message
        assert lab.ended("b", 60).state is RunState.FAILED
        lab.no_process_left()


def test_kill_9_of_a_torchrun_agent_ends_its_orphans_and_the_other_node(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, digits(100_000), processes=1) as lab:
        lab.start()
        lab.at_step("b", 3, LIMIT_S)
        os.kill(agent_of(lab, "b"), signal.SIGKILL)
        standing = lab.ended("a", 60)
        assert standing.state is RunState.FAILED
        assert "host host-b" in standing.message
        lab.no_process_left()


def test_kill_9_of_a_supervisor_ends_its_ranks_and_the_other_node(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, digits(100_000), processes=1) as lab:
        lab.start()
        lab.at_step("b", 3, LIMIT_S)
        os.kill(lab.supervisor("b").identity.pid, signal.SIGKILL)
        standing = lab.ended("a", 60)
        assert standing.state is RunState.FAILED
        assert "host host-b ended without a word" in standing.message
        wait_for(lambda: lab.standing("b").state is RunState.LOST, "node b to be found lost", 20)
        lab.no_process_left()


def test_an_elastic_run_goes_on_without_a_lost_node(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, digits(60, step_s=0.1), processes=1, min_nodes=1, max_restarts=2) as lab:
        lab.start()
        lab.at_step("b", 12, LIMIT_S)
        for pid in lab.pids("b"):
            os.kill(pid, signal.SIGKILL)
        standing = lab.ended("a", LIMIT_S)
        assert standing.state is RunState.SUCCEEDED, lab.output("a")
        assert "host host-b" in standing.message
        assert lab.curve("a", "train/loss")[-1][0] == 60
        lab.no_process_left()
