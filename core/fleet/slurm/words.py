"""Slurm's own words in plain sentences: why a job waits, how it ended, and what sbatch has against it.

Pure: texts in, sentences out. Words that are not known are shown as Slurm gave them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from core.contracts.states import RunState


class Sentence(NamedTuple):
    """What is the case, and what to do about it (may be empty)."""

    message: str
    hint: str = ""


_PENDING: dict[str, Sentence] = {
    "None": Sentence("Waits to be looked at by Slurm."),
    "Resources": Sentence("Waits until enough nodes are free."),
    "Priority": Sentence("Waits behind jobs of higher priority."),
    "BeginTime": Sentence("Waits for its begin time: Slurm puts a job back into the queue with a delay."),
    "Dependency": Sentence("Waits for another job to end."),
    "DependencyNeverSatisfied": Sentence("Waits for a job that will never end as asked.", "Cancel it."),
    "JobHeldUser": Sentence("Is held by its user.", "Release it: scontrol release."),
    "JobHeldAdmin": Sentence("Is held by an administrator.", "Ask the cluster's administrators."),
    "JobHoldMaxRequeue": Sentence(
        "Is held: it was put back into the queue too often.", "Look into its log, then release it."
    ),
    "JobArrayTaskLimit": Sentence("Waits for other runs of its array: only so many may run at once."),
    "ReqNodeNotAvail": Sentence("Waits for a node that is down, drained or reserved.", "Ask for other nodes, or wait."),
    "NodeDown": Sentence("Waits for a node that is down.", "Ask for other nodes, or wait."),
    "BadConstraints": Sentence(
        "No node can ever meet what it asks for.", "Ask for less: GPUs, memory, features or nodes."
    ),
    "PartitionDown": Sentence("The partition takes no jobs now.", "Choose another partition, or wait."),
    "PartitionInactive": Sentence("The partition starts no jobs now.", "Choose another partition, or wait."),
    "PartitionNodeLimit": Sentence("It asks for more nodes than the partition allows.", "Ask for fewer nodes."),
    "PartitionTimeLimit": Sentence("Its time limit is longer than the partition allows.", "Give a shorter time limit."),
    "PartitionConfig": Sentence(
        "It asks for more than the partition has or allows.", "Ask for fewer nodes or less time, or choose another one."
    ),
    "AccountNotAllowed": Sentence("The account may not use this partition.", "Choose another account or partition."),
    "InvalidAccount": Sentence("There is no such account.", "Choose an account that you belong to."),
    "InvalidQOS": Sentence("There is no such quality of service.", "Choose another one, or none."),
    "QOSNotAllowed": Sentence("The quality of service is not allowed here.", "Choose another one, or none."),
    "Reservation": Sentence("Waits for its reservation to begin."),
    "Licenses": Sentence("Waits for licences."),
    "Cleaning": Sentence("Waits until what is left of its last start is cleaned up."),
    "launch failed requeued held": Sentence(
        "Could not be started and is held.", "Ask the cluster's administrators why, then release it."
    ),
    "job requeued in held state": Sentence("Was put back into the queue and is held.", "Release it: scontrol release."),
    "NonZeroExitCode": Sentence("Ended with an error."),
    "FrontEndDown": Sentence("The cluster's front end is down.", "Wait, or ask its administrators."),
}
_LIMITS = (
    ("MaxJobs", "you have as many jobs as are allowed at once"),
    ("JobLimit", "you have as many jobs as are allowed at once"),
    ("MaxSubmit", "you have as many jobs waiting as are allowed"),
    ("MaxWall", "its time limit is longer than allowed"),
    ("Gres", "all GPUs (or other resources) that you may have are in use"),
    ("Cpu", "all processors that you may have are in use"),
    ("CPU", "all processors that you may have are in use"),
    ("Mem", "all memory that you may have is in use"),
    ("Node", "all nodes that you may have are in use"),
    ("GRES", "all GPUs (or other resources) that you may have are in use"),
    ("TRES", "all resources that you may have are in use"),
)
_RESUME = "Resume it to go on from its last checkpoint."
_ENDED: dict[str, tuple[RunState, Sentence]] = {
    "COMPLETED": (RunState.SUCCEEDED, Sentence("")),
    "CANCELLED": (RunState.STOPPED, Sentence("The job was cancelled.", _RESUME)),
    "TIMEOUT": (
        RunState.FAILED,
        Sentence(
            "The job reached its time limit and was ended by Slurm.", f"Give a longer time limit or requeues. {_RESUME}"
        ),
    ),
    "DEADLINE": (RunState.FAILED, Sentence("The job reached its deadline and was ended by Slurm.", _RESUME)),
    "PREEMPTED": (
        RunState.FAILED,
        Sentence(
            "The job was preempted: Slurm gave its nodes to another job.",
            f"{_RESUME} Or choose another partition or QoS.",
        ),
    ),
    "NODE_FAIL": (RunState.FAILED, Sentence("A node of the job failed.", f"{_RESUME} Slurm leaves the bad node out.")),
    "BOOT_FAIL": (RunState.FAILED, Sentence("A node of the job could not be booted.", _RESUME)),
    "OUT_OF_MEMORY": (
        RunState.FAILED,
        Sentence(
            "The job used more memory than it asked for and was ended by Slurm.",
            "Ask for more memory per node, or use a smaller batch or model; then resume it.",
        ),
    ),
    "REVOKED": (RunState.FAILED, Sentence("The job was taken over by another cluster.", "")),
    "FAILED": (RunState.FAILED, Sentence("The job failed.", "See the log of the run and the job's own output.")),
}
_CLUSTER_DOWN = Sentence("Slurm's controller does not answer.", "Wait a little, or ask the cluster's administrators.")
_REFUSED: tuple[tuple[str, Sentence, bool], ...] = (
    (r"unable to contact slurm controller|connection refused|connection failure|timed out", _CLUSTER_DOWN, False),
    (
        r"configuration source|resolve_ctls|slurm\.conf",
        Sentence("Slurm is not configured on this host.", "Name a login host of the cluster."),
        False,
    ),
    (
        r"munge|protocol authentication",
        Sentence("Slurm does not accept this host.", "Ask the cluster's administrators about munge on it."),
        False,
    ),
    (
        r"invalid partition",
        Sentence("Slurm has no such partition.", "Choose one of the cluster's partitions."),
        True,
    ),
    (
        r"invalid account|account/partition combination",
        Sentence("Slurm refused the account.", "Choose an account that you belong to and that may use the partition."),
        True,
    ),
    (r"invalid qos", Sentence("Slurm refused the quality of service.", "Choose another one, or none."), True),
    (r"invalid feature", Sentence("No node of the cluster has such features.", "Change the constraint."), True),
    (
        r"generic resource|\(gres\)",
        Sentence("The cluster has no such generic resource.", "Choose one that a partition offers, such as gpu:1."),
        True,
    ),
    (
        r"memory specification can not|memory required by task",
        Sentence("No node has that much memory.", "Ask for less memory."),
        True,
    ),
    (
        r"node count specification|more processors requested|node configuration is not available|partition configuration",
        Sentence("The partition cannot give what is asked for.", "Ask for fewer nodes, processors, GPUs or less time."),
        True,
    ),
    (
        r"time limit|invalid --time",
        Sentence("The time limit is not allowed.", "Give a shorter one, such as 4:00:00."),
        True,
    ),
    (
        r"accounting/qos policy|job size|submit limit",
        Sentence("A limit of your account does not allow this job.", "Ask for less, or wait for other jobs to end."),
        True,
    ),
    (
        r"partition.*(inactive|down|unavailable|not available)",
        Sentence("The partition takes no jobs now.", "Choose another partition, or wait."),
        True,
    ),
    (
        r"access.*denied|user not permitted",
        Sentence("Slurm does not allow that.", "Ask the cluster's administrators."),
        True,
    ),
    (r"invalid job id", Sentence("Slurm no longer knows the job.", "Resume the run to submit it anew."), True),
)
_SPEAKER = re.compile(r"^[a-z]+: (error|fatal|warning): ")


def pending(reason: str) -> Sentence:
    """Return why a job waits, from Slurm's reason (such as ``Resources`` or ``QOSMaxJobsPerUserLimit``)."""
    plain = reason.strip().strip("()")
    word = plain.partition(",")[0].strip()
    if found := _PENDING.get(plain) or _PENDING.get(word):
        extra = plain[len(word) :].strip(" ,")
        names = extra.removeprefix("UnavailableNodes:")
        return Sentence(f"{found.message[:-1]} ({names}).", found.hint) if names else found
    for prefix, who in (("QOS", "the quality of service"), ("Assoc", "the account")):
        if word.startswith(prefix):
            return _limit(word, who)
    return Sentence(f"Waits; Slurm's reason: {plain}." if plain else "Waits in the queue of Slurm.")


def _limit(word: str, who: str) -> Sentence:
    for part, what in _LIMITS:
        if part in word:
            return Sentence(f"Waits for a limit of {who}: {what} ({word}).")
    return Sentence(f"Waits for a limit of {who} ({word}).")


def ended(slurm_state: str, code: int | None = None, killed_by: int | None = None) -> tuple[RunState, Sentence]:
    """Return how a job ended, from Slurm's state and its script's exit status and signal."""
    state, sentence = _ENDED.get(slurm_state, (RunState.FAILED, Sentence(f"The job ended: {slurm_state}.")))
    if slurm_state == "FAILED" and killed_by:
        return state, Sentence(f"The job was ended by signal {killed_by}.", sentence.hint)
    if slurm_state == "FAILED" and code:
        return state, Sentence(f"The job failed with exit status {code}.", sentence.hint)
    return state, sentence


def refused(output: str) -> tuple[Sentence, bool]:
    """Return what one of Slurm's commands had against a request, in words and with Slurm's own in brackets.

    The second part is true when the request is to blame, false when the cluster is.
    """
    lines = [_SPEAKER.sub("", line).strip() for line in output.splitlines()]
    own = next((line for line in reversed(lines) if line), "")[:300]
    for pattern, sentence, is_ours in _REFUSED:
        if re.search(pattern, output, re.IGNORECASE):
            return Sentence(f"{sentence.message[:-1]} ({own.rstrip('.')}).", sentence.hint), is_ours
    if not own:
        return Sentence("Slurm refused without a word.", "Ask the cluster's administrators."), False
    return Sentence(f"Slurm refused: {own.rstrip('.')}.", "Change what is asked of Slurm."), True
