"""Runs on Kubernetes: manifests from specs, the user's own ``kubectl``, and the run directory from the pods' logs."""

from core.fleet.kubernetes.check import check_cluster, require_fit
from core.fleet.kubernetes.cluster import ClusterEvent, ClusterState, KubernetesCluster
from core.fleet.kubernetes.follower import KubernetesFollower
from core.fleet.kubernetes.kubectl import contexts, current_context
from core.fleet.kubernetes.manifests import KubernetesLaunch, manifest, prepare
from core.fleet.kubernetes.problems import problems

__all__ = [
    "ClusterEvent",
    "ClusterState",
    "KubernetesCluster",
    "KubernetesFollower",
    "KubernetesLaunch",
    "check_cluster",
    "contexts",
    "current_context",
    "manifest",
    "prepare",
    "problems",
    "require_fit",
]
