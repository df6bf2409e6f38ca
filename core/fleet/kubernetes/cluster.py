"""One context and namespace of Kubernetes: apply a run's objects, see how they stand, delete them all again.

Everything goes through the real ``kubectl``. Blocks: never on the UI thread. Each method raises ``ClusterRefusal`` (an
``EnvironmentProblem``) with a sentence and a remedy when kubectl is absent or the cluster refuses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.contracts.clusters import KubernetesSpec
from core.contracts.errors import Cancelled, EnvironmentProblem
from core.contracts.states import RunState
from core.fleet.kubernetes.kubectl import Kubectl
from core.fleet.kubernetes.names import CONTAINER, MANAGER, object_name, selector
from core.fleet.kubernetes.pod_states import PodStatus, latest_by_node, pod_status, unix_seconds
from core.fleet.kubernetes.refusals import ClusterRefusal, explain
from core.runlog.layout import CONTROL, STOP_REQUEST

Object = dict[str, Any]

WORK_KINDS = {"job": "jobs.batch", "jobset": "jobsets.jobset.x-k8s.io", "trainjob": "trainjobs.trainer.kubeflow.org"}
"""Resource of each form, as ``kubectl api-resources -o name`` shows it."""
_FORM_KINDS = {"job": "Job", "jobset": "JobSet", "trainjob": "TrainJob"}
_APPLY = ("apply", "--server-side", f"--field-manager={MANAGER}", "--filename=-")
_DELETE_POLL_S = 0.5


class _CannotAsk(Exception):
    """No pod of the run can be asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """How a run stands in the cluster.

    Attributes:
        exists: There is anything of the run.
        state: Of the run as a whole; None when the cluster holds nothing of its work.
        message: A sentence; empty when all is well.
        hint: The remedy; may be empty.
        pods: All pods that are still there, older ones of the same node too.
    """

    exists: bool
    state: RunState | None = None
    message: str = ""
    hint: str = ""
    pods: tuple[PodStatus, ...] = ()

    @property
    def is_over(self) -> bool:
        """True when the cluster will start nothing more of the run."""
        return self.state is None or self.state.is_terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """An event of the cluster about one of a run's objects; ``ts`` in Unix seconds, ``count`` how often it came."""

    ts: float
    about: str
    reason: str
    message: str
    is_warning: bool
    count: int = 1


class KubernetesCluster:
    """A context of the user's kubeconfig. Thread-safe."""

    def __init__(
        self, context: str = "", namespace: str = "", *, form: str = "job", kubeconfig: Path | None = None
    ) -> None:
        """Name the place; asks nothing.

        Args:
            context: Of the kubeconfig; empty for its current one.
            namespace: Empty for the context's own.
            form: ``job``, ``jobset`` or ``trainjob``: which object holds a run.
            kubeconfig: File instead of the user's own.
        """
        self.kubectl = Kubectl(context, namespace, kubeconfig)
        self.form = form

    @classmethod
    def of(cls, asked: KubernetesSpec, kubeconfig: Path | None = None) -> KubernetesCluster:
        """Return the cluster that a spec names."""
        return cls(asked.context, asked.namespace, form=asked.form, kubeconfig=kubeconfig)

    def served_kinds(self) -> frozenset[str]:
        """Return the resources that the cluster serves, such as ``jobs.batch``."""
        return frozenset(self.kubectl.run(["api-resources", "--output=name"]).decode(errors="replace").split())

    def served_forms(self) -> tuple[str, ...]:
        """Return which of ``job``, ``jobset`` and ``trainjob`` the cluster can run."""
        kinds = self.served_kinds()
        return tuple(form for form, kind in WORK_KINDS.items() if kind in kinds)

    def may(self, verb: str, resource: str, subresource: str = "") -> bool:
        """Return whether the user may do that in the namespace."""
        words = ["auth", "can-i", verb, resource, *([f"--subresource={subresource}"] if subresource else [])]
        try:
            return self.kubectl.run(words).strip().startswith(b"yes")
        except ClusterRefusal as refusal:
            if refusal.topic == "other":  # the answer no is an exit status of 1 and nothing on stderr
                return False
            raise

    def try_apply(self, manifest: str) -> None:
        """Let the API server check a manifest, admission rules and quotas included, without making anything."""
        self.kubectl.run([*_APPLY, "--dry-run=server"], stdin=manifest.encode())

    def apply(self, manifest: str, run_id: str) -> None:
        """Make a run's objects by server-side apply, tried out on the server first; nothing is left when it fails."""
        self.try_apply(manifest)
        try:
            self.kubectl.run(_APPLY, stdin=manifest.encode())
        except EnvironmentProblem as error:
            try:
                self.delete(run_id)
            except EnvironmentProblem as second:
                raise EnvironmentProblem(
                    error.message, f"{error.hint} What was made of it may still be there: {second.message}"
                ) from error
            raise

    def state(self, run_id: str) -> ClusterState:
        """Return how a run stands: the work's own state, and each pod's in words."""
        listed = self.kubectl.json(["get", ",".join(("pods", WORK_KINDS[self.form])), f"--selector={selector(run_id)}"])
        objects = cast("list[Object]", listed.get("items") or [])
        pods = tuple(pod_status(one) for one in objects if one.get("kind") == "Pod")
        work = next((one for one in objects if one.get("kind") == _FORM_KINDS[self.form]), None)
        if work is None:
            return ClusterState(exists=bool(pods), pods=pods)
        return self._state_of(work, pods, run_id)

    def _state_of(self, work: Object, pods: tuple[PodStatus, ...], run_id: str) -> ClusterState:
        state, message = _conditions(work)
        newest = latest_by_node(pods).values()
        if state is RunState.SUCCEEDED:
            return ClusterState(exists=True, state=state, pods=pods)
        troubled = [pod for pod in newest if pod.message]
        if state is RunState.FAILED:
            failed = next((pod for pod in troubled if pod.state is RunState.FAILED), None)
            said = failed.message if failed is not None else message
            return ClusterState(
                exists=True, state=state, message=said, hint=failed.hint if failed is not None else "", pods=pods
            )
        if state is None and not pods and (refused := self._refused_pods(run_id)) is not None:
            return ClusterState(exists=True, state=RunState.QUEUED, message=refused.message, hint=refused.hint)
        if state is None:
            state = min((pod.state for pod in newest), key=_ORDER.index, default=RunState.QUEUED)
            # The work is not over: another pod takes the failed one's place, or the others are being ended.
            state = RunState.RUNNING if state in {RunState.FAILED, RunState.SUCCEEDED} else state
        first = next((pod for pod in troubled if pod.state is state), None)
        said, hint = (first.message, first.hint) if first is not None else (message, "")
        return ClusterState(exists=True, state=state, message=said, hint=hint, pods=pods)

    def _refused_pods(self, run_id: str) -> ClusterRefusal | None:
        """Return why the cluster makes no pods, such as a used-up quota; the reason stands in an event only."""
        refused = [event for event in self.events(run_id) if event.reason == "FailedCreate"]
        return explain(refused[-1].message, self.kubectl.context) if refused else None

    def events(self, run_id: str) -> tuple[ClusterEvent, ...]:
        """Return what the cluster says about a run's objects, oldest first; it forgets within about an hour."""
        listed = self.kubectl.json(["get", "events"])
        name = object_name(run_id)
        found = [
            _event(one)
            for one in cast("list[Object]", listed.get("items") or [])
            if _is_about(str(cast("Object", one.get("involvedObject") or {}).get("name", "")), name)
        ]
        return tuple(sorted(found, key=lambda event: event.ts))

    def stop(self, run_id: str, run_folder: str = "") -> None:
        """Have a run save and end.

        Its pods are asked from the inside, so that they end by themselves and their logs stay; where they cannot be
        asked (one does not run yet and would wait for the others, or entering pods is not allowed), the work is deleted:
        each pod is told to end, and its log can be read until it has. What else the run has in the cluster stays until
        ``delete``.

        Args:
            run_id: The run.
            run_folder: The run directory in the pods; empty to delete at once.
        """
        live = [pod for pod in self.state(run_id).pods if not pod.state.is_terminal and not pod.is_ending]
        running = [pod for pod in live if pod.state is RunState.RUNNING]
        try:
            if not running or len(running) < len(live) or not run_folder:
                raise _CannotAsk
            for pod in running:
                self._touch(pod, f"{run_folder}/{CONTROL}/{STOP_REQUEST}")
        except (_CannotAsk, ClusterRefusal):
            self._end_work(run_id)

    def _touch(self, pod: PodStatus, path: str) -> None:
        code = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
        self.kubectl.run(["exec", pod.name, f"--container={CONTAINER}", "--", "python", "-I", "-c", code, path])

    def _end_work(self, run_id: str) -> None:
        kind = WORK_KINDS[self.form]
        words = ["delete", kind, f"--selector={selector(run_id)}", "--cascade=foreground", "--wait=false"]
        self.kubectl.run([*words, "--ignore-not-found"])

    def delete(
        self, run_id: str, *, timeout_s: float = 120.0, is_cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """Delete everything of a run and wait until it is gone, pods included; the volume claim is the user's and stays.

        Raises:
            EnvironmentProblem: Something is still there after ``timeout_s``; it is named.
            Cancelled: The wait was cancelled; the deletion goes on in the cluster.
        """
        kinds = self._kinds_to_delete()
        words = ["delete", ",".join(kinds), f"--selector={selector(run_id)}", "--cascade=foreground", "--wait=false"]
        self.kubectl.run([*words, "--ignore-not-found"])
        deadline = time.monotonic() + timeout_s
        while left := self.left_of(run_id):
            if is_cancelled():
                raise Cancelled
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"After {timeout_s:g} s the cluster still has of this run: {', '.join(left[:5])}.",
                    "A machine of the cluster may be lost. See: kubectl describe, then delete again.",
                )
            time.sleep(_DELETE_POLL_S)

    def left_of(self, run_id: str) -> tuple[str, ...]:
        """Return what the cluster still has of a run, such as ``pod/ph-...``."""
        kinds = [*self._kinds_to_delete(), "pods"]
        words = ["get", ",".join(kinds), f"--selector={selector(run_id)}", "--output=name", "--ignore-not-found"]
        return tuple(self.kubectl.run(words).decode(errors="replace").split())

    def _kinds_to_delete(self) -> list[str]:
        """Name what a run may have made; only its own form, for the cluster may not serve the others."""
        return list(dict.fromkeys([WORK_KINDS[self.form], WORK_KINDS["job"], "services", "configmaps"]))


_ORDER = (RunState.QUEUED, RunState.PREPARING, RunState.FAILED, RunState.RUNNING, RunState.SUCCEEDED)
"""The run stands where the first of these holds for a pod."""


def _conditions(work: Object) -> tuple[RunState | None, str]:
    """Return the state that the object itself claims, and its sentence."""
    states = {
        "Complete": RunState.SUCCEEDED,
        "Completed": RunState.SUCCEEDED,
        "Failed": RunState.FAILED,
        "Suspended": RunState.QUEUED,
    }
    for condition in cast("list[Object]", cast("Object", work.get("status") or {}).get("conditions") or []):
        state = states.get(str(condition.get("type")))
        if state is None or condition.get("status") != "True":
            continue
        if state is RunState.QUEUED:
            return state, "The cluster's queue has not let it in yet, or it was suspended."
        return state, str(condition.get("message") or condition.get("reason") or "")
    return None, ""


def _event(one: Object) -> ClusterEvent:
    about = cast("Object", one.get("involvedObject") or {})
    times = (one.get("lastTimestamp"), one.get("eventTime"), one.get("firstTimestamp"))
    return ClusterEvent(
        ts=next((unix_seconds(text) for text in times if text), 0.0),
        about=f"{about.get('kind', '')}/{about.get('name', '')}".lower(),
        reason=str(one.get("reason", "")),
        message=str(one.get("message", "")),
        is_warning=one.get("type") == "Warning",
        count=int(one.get("count") or 1),
    )


def _is_about(name: str, run: str) -> bool:
    return name == run or name.startswith(f"{run}-")
