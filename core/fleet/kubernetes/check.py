"""Looks at a cluster before a launch: all findings at once, each with a remedy. Changes nothing there.

What only the API server can tell of a manifest (admission rules, quotas) it tells at the launch, which tries it out on the
server first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from core.contracts.clusters import KubernetesSpec
from core.contracts.errors import EnvironmentProblem
from core.contracts.hosts import CheckReport, Finding, FindingLevel
from core.contracts.specs import RunSpec
from core.fleet.kubernetes.cluster import WORK_KINDS, KubernetesCluster
from core.fleet.kubernetes.manifests import TORCH_RUNTIME
from core.fleet.kubernetes.refusals import ClusterRefusal

_LOCAL_QUEUES = "localqueues.kueue.x-k8s.io"
_RUNTIMES = "clustertrainingruntimes.trainer.kubeflow.org"
_AT_ONCE = 4

Look = Callable[[], Finding | None]


def check_cluster(cluster: KubernetesCluster, spec: RunSpec) -> CheckReport:
    """Return what was found; blocks for about a second. Never raises for what is wrong with the cluster.

    Args:
        cluster: The cluster that the spec names.
        spec: What is to be launched.
    """
    asked = spec.launch.kubernetes
    name = asked.context or "kubernetes"
    try:
        kinds = cluster.served_kinds()
    except EnvironmentProblem as problem:
        return CheckReport(host=name, ok=False, findings=(_error("reachable", problem.message, problem.hint),))
    looks = [*_rights(cluster, asked), *_needs(cluster, asked, kinds)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [finding for finding in pool.map(_safely, looks) if finding is not None]
    found = [_ok("reachable", "The cluster answers."), *_form(asked, kinds), *_shared_memory(asked), *found]
    return CheckReport(host=name, ok=all(one.level is not FindingLevel.ERROR for one in found), findings=tuple(found))


def require_fit(cluster: KubernetesCluster, spec: RunSpec) -> None:
    """Accept a cluster that a run can be launched on; EnvironmentProblem with all that stands against it otherwise."""
    against = [one for one in check_cluster(cluster, spec).findings if one.level is FindingLevel.ERROR]
    if against:
        raise EnvironmentProblem(
            " ".join(one.what for one in against), " ".join(dict.fromkeys(one.remedy for one in against))
        )


def _error(topic: str, what: str, remedy: str) -> Finding:
    return Finding(level=FindingLevel.ERROR, what=what, remedy=remedy, topic=topic)


def _warning(topic: str, what: str, remedy: str) -> Finding:
    return Finding(level=FindingLevel.WARNING, what=what, remedy=remedy, topic=topic)


def _ok(topic: str, what: str) -> Finding:
    return Finding(level=FindingLevel.OK, what=what, topic=topic)


def _safely(look: Look) -> Finding | None:
    try:
        return look()
    except EnvironmentProblem as problem:
        return _warning("asking", f"Something could not be looked at: {problem.message}", problem.hint)


def _form(asked: KubernetesSpec, kinds: frozenset[str]) -> Iterable[Finding]:
    if WORK_KINDS[asked.form] not in kinds:
        yield _error(
            "form",
            f"The cluster does not serve {WORK_KINDS[asked.form]}.",
            "Choose the form 'job', which needs no operator, or have the operator installed.",
        )


def _shared_memory(asked: KubernetesSpec) -> Iterable[Finding]:
    if asked.gpus_per_node and not asked.shm:
        yield _warning(
            "shm",
            "/dev/shm of a pod is 64 MiB; data loaders and NCCL need more.",
            "Set the shared memory, such as 8Gi.",
        )


def _rights(cluster: KubernetesCluster, asked: KubernetesSpec) -> Iterable[Look]:
    kind = WORK_KINDS[asked.form]
    made = [kind, "configmaps", *(["services"] if asked.form == "job" else [])]
    needed = [(verb, resource, "") for resource in made for verb in ("create", "patch", "delete")]
    needed += [("list", "pods", ""), ("get", "pods", "log")]

    def may(verb: str, resource: str, sub: str) -> Finding | None:
        if cluster.may(verb, resource, sub):
            return None
        shown = f"{resource}/{sub}" if sub else resource
        return _error(
            "rights", f"You may not {verb} {shown} in this namespace.", "Ask the cluster's owner for that right."
        )

    def may_enter() -> Finding | None:
        if cluster.may("create", "pods", "exec"):
            return None
        return _warning(
            "rights",
            "You may not enter pods: a stopped run is deleted from the cluster to end it.",
            "Keep the window open until a stopped run has ended, so that its last lines are read.",
        )

    return [*(lambda one=one: may(*one) for one in needed), may_enter]


def _needs(cluster: KubernetesCluster, asked: KubernetesSpec, kinds: frozenset[str]) -> Iterable[Look]:
    named = [("secrets", name) for name in (*asked.secrets, asked.image_pull_secret) if name]
    named += [("serviceaccounts", asked.service_account)] if asked.service_account else []
    looks: list[Look] = [lambda one=one: _exists(cluster, *one) for one in named]
    if asked.form == "trainjob" and WORK_KINDS["trainjob"] in kinds:
        looks.append(lambda: _exists(cluster, _RUNTIMES, TORCH_RUNTIME))
    if asked.volume_claim:
        looks.append(lambda: _claim(cluster, asked))
    if asked.queue and _LOCAL_QUEUES in kinds:
        looks.append(lambda: _exists(cluster, _LOCAL_QUEUES, asked.queue))
    elif asked.queue:
        remedy = "Leave the queue empty, or have Kueue installed."
        looks.append(lambda: _error("queue", "The cluster has no Kueue, so the queue means nothing.", remedy))
    return looks


def _exists(cluster: KubernetesCluster, kind: str, name: str) -> Finding | None:
    try:
        cluster.kubectl.run(["get", kind, name, "--output=name"])
    except ClusterRefusal as refusal:
        if refusal.topic == "forbidden":
            return None  # the pods may use it though the user may not read it
        if refusal.topic != "not_found":
            raise
        what = f"The namespace has no {kind.split('.', maxsplit=1)[0].removesuffix('s')} {name!r}."
        return _error(kind.split(".", maxsplit=1)[0], what, "Make it, or correct its name.")
    return None


def _claim(cluster: KubernetesCluster, asked: KubernetesSpec) -> Finding | None:
    try:
        claim = cluster.kubectl.json(["get", "persistentvolumeclaims", asked.volume_claim])
    except ClusterRefusal as refusal:
        if refusal.topic != "not_found":
            raise
        what = f"The namespace has no volume claim {asked.volume_claim!r}."
        return _error("volume", what, "Make it, or correct its name.")
    modes = cast("list[str]", cast("dict[str, Any]", claim.get("spec") or {}).get("accessModes") or [])
    if asked.nodes > 1 and "ReadWriteMany" not in modes:
        return _warning(
            "volume",
            f"The volume claim can be mounted on one machine only ({', '.join(modes) or 'no mode known'}).",
            "Use a claim with ReadWriteMany for several pods, or they may wait for ever.",
        )
    return None
