"""Slurm's output as records and sentences, with output of several versions."""

from __future__ import annotations

import pytest

from core.contracts.states import RunState
from core.fleet.slurm import words
from core.fleet.slurm.commands import fields_of
from core.fleet.slurm.offers import partitions_of
from core.fleet.slurm.records import JobPhase
from core.fleet.slurm.states import from_accounts, live_state


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("Resources", "enough nodes are free"),
        ("(Priority)", "higher priority"),
        ("QOSMaxJobsPerUserLimit", "limit of the quality of service: you have as many jobs"),
        ("AssocGrpGRES", "limit of the account: all GPUs"),
        ("QOSGrpSomethingNew", "limit of the quality of service (QOSGrpSomethingNew)"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "down, drained or reserved (n[1-2])"),
        ("BadConstraints", "No node can ever"),
        ("launch failed requeued held", "Could not be started"),
        ("SomethingNew", "Slurm's reason: SomethingNew"),
        ("", "queue"),
    ],
)
def test_a_waiting_job_says_why_in_words(reason: str, message: str) -> None:
    assert message in words.pending(reason).message


@pytest.mark.parametrize(
    ("state", "run_state", "message"),
    [
        ("COMPLETED", RunState.SUCCEEDED, ""),
        ("TIMEOUT", RunState.FAILED, "time limit"),
        ("PREEMPTED", RunState.FAILED, "preempted"),
        ("NODE_FAIL", RunState.FAILED, "node of the job failed"),
        ("OUT_OF_MEMORY", RunState.FAILED, "more memory than it asked for"),
        ("CANCELLED", RunState.STOPPED, "cancelled"),
        ("NEW_STATE", RunState.FAILED, "NEW_STATE"),
    ],
)
def test_an_end_has_a_name(state: str, run_state: RunState, message: str) -> None:
    found, sentence = words.ended(state)
    assert found is run_state
    assert message in sentence.message
    assert words.ended("FAILED", 3)[1].message == "The job failed with exit status 3."
    assert words.ended("FAILED", 0, 9)[1].message == "The job was ended by signal 9."


@pytest.mark.parametrize(
    ("output", "message", "is_ours"),
    [
        (
            "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid "
            "partition name specified",
            "no such partition",
            True,
        ),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", "account", True),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "quality of service", True),
        ("sbatch: error: Memory specification can not be satisfied", "that much memory", True),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", "does not answer", False),
        ("squeue: error: something else", "Slurm refused: something else.", True),
    ],
)  # fmt: skip
def test_a_refusal_is_a_sentence_with_slurms_own_words(output: str, message: str, *, is_ours: bool) -> None:
    sentence, found = words.refused(output)
    assert message in sentence.message
    assert output.rsplit(": ", 1)[1] in sentence.message
    assert found is is_ours
    assert sentence.hint


def test_accounts_of_a_requeued_job_count_by_their_last_line() -> None:
    table = [
        ["5", "NODE_FAIL", "1:0", "n[1-2]"],
        ["5", "CANCELLED by 1000", "0:15", "n1"],
        ["6_1", "RUNNING", "0:0", "n2"],
        ["7", "FAILED", "1:0", "n2"],
    ]
    found = from_accounts(table, ["5", "6_1"], "sacct")
    assert set(found) == {"5", "6_1"}
    assert (found["5"].slurm_state, found["5"].run_state, found["5"].signal) == ("CANCELLED", RunState.STOPPED, 15)
    assert found["6_1"].phase is JobPhase.RUNNING


def test_a_job_that_is_set_up_is_preparing() -> None:
    state = live_state("1", "CONFIGURING", "n1", "None")
    assert state is not None
    assert (state.phase, state.run_state) == (JobPhase.RUNNING, RunState.PREPARING)
    assert live_state("1", "COMPLETED", "n1", "None") is None


def test_a_path_of_the_user_cannot_pose_as_a_field() -> None:
    line = "JobId=1 JobName=x JobState=FAILED Reason=NonZeroExitCode WorkDir=/a JobState=COMPLETED Comment= JobId=2"
    assert fields_of(line)["JobState"] == "FAILED"
    assert fields_of(line)["JobId"] == "1"


def test_a_partition_with_unlike_nodes_is_one() -> None:
    table = (
        "gpu*|up|2-00:00:00|1/2/0/3|64|512000+|gpu:a100:4(S:0,1),nvme:1|a100,ib\n"
        "gpu*|up|2-00:00:00|0/1/1/2|32+|256000|gpu:v100:2|v100,ib\n"
        "debug|down|30:00|0/0/4/4|8|1.5K|(null)|(null)\n"
    )
    gpu, debug = partitions_of(table)
    assert (gpu.name, gpu.is_default, gpu.nodes, gpu.idle, gpu.usable) == ("gpu", True, 5, 3, 4)
    assert (gpu.cpus_per_node, gpu.memory_bytes) == (32, 256000 << 20)
    assert gpu.gres == ("gpu:a100:4(S:0,1)", "nvme:1", "gpu:v100:2")
    assert gpu.features == ("a100", "ib", "v100")
    assert (debug.is_up, debug.gres, debug.memory_bytes) == (False, (), 1500 << 20)
