"""What pods, their containers and their events say, in words: why one waits, and how one ended.

Reads the objects as the API server gives them; asks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from core.contracts.states import RunState
from core.fleet.kubernetes.names import CONTAINER, INDEX_LABEL, node_of

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodStatus:
    """One pod of a run.

    Attributes:
        node: Its node's name in the run directory.
        name: Its name in the cluster.
        uid: Tells it from a later pod of the same node.
        state: Where it stands; ``queued`` while the cluster has no place for it.
        message: A sentence; empty when all is well.
        hint: The remedy; may be empty.
        machine: The cluster's machine it is on; empty while there is none.
        created: Unix seconds.
        exit_code: Of its container, once that has ended.
        has_started: Its container ran at least once, so that there are logs.
        is_ending: It is being deleted.
    """

    node: str
    name: str
    uid: str
    state: RunState
    message: str = ""
    hint: str = ""
    machine: str = ""
    created: float = 0.0
    exit_code: int | None = None
    has_started: bool = False
    is_ending: bool = False


_WAITING: dict[str, tuple[str, str]] = {
    "ErrImagePull": ("The image cannot be pulled", "Check the image's name, and the pull secret for a private one."),
    "ImagePullBackOff": (
        "The image cannot be pulled",
        "Check the image's name, and the pull secret for a private one.",
    ),
    "InvalidImageName": ("The name of the image is not valid", "Correct the image's name."),
    "CrashLoopBackOff": ("The container fails again and again", "See what it printed last."),
    "CreateContainerConfigError": (
        "The container cannot be made: a Secret or ConfigMap is missing",
        "Check the names of the secrets in this namespace.",
    ),
    "CreateContainerError": ("The container cannot be made", "Check the image and the mount path."),
    "RunContainerError": ("The container cannot be started", "Check that the image has a program 'python'."),
}
_ENDED: dict[str, tuple[str, str]] = {
    "OOMKilled": (
        "The container used more memory than its limit and was killed",
        "Ask for more memory, or halve the batch size.",
    ),
    "Evicted": ("The cluster took the pod off its machine", "Ask for the memory and disk that the run needs."),
    "Preempted": (
        "Something of higher priority took the pod's place",
        "Launch it again, with a volume claim to go on.",
    ),
    "NodeLost": ("The machine of the pod was lost", "Launch it again, with a volume claim to go on."),
    "DeadlineExceeded": ("The time limit on the cluster has passed", "Raise the limit, or resume the run."),
    "ContainerCannotRun": ("The container cannot be started", "Check that the image has a program 'python'."),
    "StartError": ("The container cannot be started", "Check that the image has a program 'python'."),
}


def unix_seconds(text: str | None) -> float:
    """Return the Unix seconds of a time as Kubernetes writes it; 0 for none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _sentence(words: str, detail: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in detail).split()).rstrip(".")[:400]
    return f"{words}: {plain}." if plain else f"{words}."


def unschedulable(detail: str) -> tuple[str, str]:
    """Return why no machine takes a pod, with the remedy."""
    lacks = re.findall(r"\d+ Insufficient ([\w./-]+)", detail)
    what = " and ".join(dict.fromkeys(lacks))
    if what:
        return _sentence(f"No machine of the cluster has enough {what} free", detail), "Wait, or ask for less."
    if "node selector" in detail or "node affinity" in detail:
        return _sentence("No machine has the labels asked for", detail), "Correct the node selector."
    if "persistentvolumeclaim" in detail:
        return _sentence("The volume claim cannot be used", detail), "Check the claim's name in this namespace."
    if "taint" in detail:
        return _sentence("The machines are reserved for other work", detail), "Ask the cluster's owner for access."
    return _sentence("The cluster has no place for the pod yet", detail), "Wait, or ask for less."


def pod_status(pod: Object) -> PodStatus:
    """Return how a pod stands."""
    meta, status = cast("Object", pod["metadata"]), cast("Object", pod.get("status", {}))
    labels = cast("dict[str, str]", meta.get("labels") or {})
    annotations = cast("dict[str, str]", meta.get("annotations") or {})
    index = labels.get(INDEX_LABEL) or annotations.get(INDEX_LABEL) or "0"
    container = _container(status)
    state, message, hint = _conclude(status, container)
    ended = cast("Object", container.get("state", {})).get("terminated")
    return PodStatus(
        node=node_of(int(index) if index.isdigit() else 0),
        name=str(meta["name"]),
        uid=str(meta.get("uid", "")),
        state=state,
        message=message,
        hint=hint,
        machine=str(cast("Object", pod.get("spec", {})).get("nodeName", "")),
        created=unix_seconds(meta.get("creationTimestamp")),
        exit_code=None if ended is None else int(ended.get("exitCode", 0)),
        has_started=bool({"running", "terminated"} & set(container.get("state", {}))) or "lastState" in container,
        is_ending="deletionTimestamp" in meta,
    )


def _container(status: Object) -> Object:
    listed = cast("list[Object]", status.get("containerStatuses") or [])
    return next((one for one in listed if one.get("name") == CONTAINER), {})


def _conclude(status: Object, container: Object) -> tuple[RunState, str, str]:
    phase = status.get("phase", "Pending")
    state = cast("Object", container.get("state") or {})
    if phase == "Succeeded":
        return RunState.SUCCEEDED, "", ""
    if phase == "Failed":
        return (RunState.FAILED, *_why_failed(status, state))
    waiting = cast("Object", state.get("waiting") or {})
    reason = str(waiting.get("reason", ""))
    if reason in _WAITING:
        words, hint = _WAITING[reason]
        return RunState.PREPARING, _sentence(words, str(waiting.get("message", ""))), hint
    if phase == "Running":
        return RunState.RUNNING, "", ""
    for condition in cast("list[Object]", status.get("conditions") or []):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return (RunState.QUEUED, *unschedulable(str(condition.get("message", ""))))
    return RunState.PREPARING, "The pod is being set up: image and volumes.", ""


def _why_failed(status: Object, state: Object) -> tuple[str, str]:
    ended = cast("Object", state.get("terminated") or {})
    for reason in (str(status.get("reason", "")), str(ended.get("reason", ""))):
        if reason in _ENDED:
            words, hint = _ENDED[reason]
            detail = str(status.get("message") or ended.get("message") or "")
            return _sentence(words, detail), hint
    for condition in cast("list[Object]", status.get("conditions") or []):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return _sentence("The cluster took the pod away", str(condition.get("message", ""))), "Resume the run."
    code = ended.get("exitCode")
    if code == 137:
        return "The container was killed (137).", "Often the memory limit: ask for more, or halve the batch size."
    return f"The container ended with status {code}.", "See what it printed last."


def latest_by_node(pods: Sequence[PodStatus]) -> dict[str, PodStatus]:
    """Return the newest pod of each node, by the node's name."""
    return {pod.node: pod for pod in sorted(pods, key=lambda pod: (pod.created, not pod.is_ending))}
