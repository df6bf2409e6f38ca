"""How an attempt's end is judged from its exit status, its failure events and its own part of the log."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from core.contracts.states import RunState
from core.jobs.ending import judge
from core.jobs.records import EXIT_STOPPED, Attempt
from core.runlog.emit import EventWriter
from core.runlog.layout import RunLayout

EARLIER = "torch.OutOfMemoryError: CUDA out of memory.\n"


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    (tmp_path / "stdout.b.log").write_text(f"{EARLIER}RuntimeError: Connection closed by peer\n")
    return Attempt(run_dir=tmp_path, started=time.time(), node="b", stdout_offset=len(EARLIER))


def fails(attempt: Attempt, message: str) -> None:
    writer = EventWriter(RunLayout(attempt.run_dir).events("worker", attempt.node))
    writer.write("failure", kind="user", message=message, hint="Mend it.")
    writer.close()


def test_an_echo_in_this_attempts_output_is_seen_as_one(attempt: Attempt) -> None:
    verdict = judge(attempt, 1)
    assert (verdict.state, verdict.kind, verdict.is_secondary) == (RunState.FAILED, "peer_gone", True)
    assert verdict.failed_at >= attempt.started


def test_the_failure_event_is_quoted_with_its_time(attempt: Attempt) -> None:
    fails(attempt, "Rank 3 hit a bad row.")
    verdict = judge(attempt, 1)
    assert (verdict.message, verdict.hint) == ("Rank 3 hit a bad row.", "Mend it.")
    assert attempt.started <= verdict.failed_at <= time.time()


def test_a_rank_that_the_kernel_killed_for_memory_is_said_to(attempt: Attempt) -> None:
    fails(attempt, "Rank 1 of the script was ended by SIGKILL.")
    assert judge(attempt, 1).hint == "Mend it."
    verdict = judge(attempt, 1, memory_kills=1)
    assert verdict.message.startswith("The machine ran out of memory")
    assert "Rank 1" in verdict.message
    assert (verdict.kind, verdict.is_secondary) == ("memory_killed", False)


def test_a_stop_is_no_failure(attempt: Attempt) -> None:
    fails(attempt, "Connection closed by peer.")
    assert judge(attempt, EXIT_STOPPED, stop_reason="Stopped on request.").state is RunState.STOPPED
    assert judge(attempt, 0, stop_reason="Stopped on request.").state is RunState.SUCCEEDED
