"""What kubectl, pods and events say, in words with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from core.contracts.states import RunState
from core.fleet.kubernetes.pod_states import latest_by_node, pod_status
from core.fleet.kubernetes.refusals import explain

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("stderr", "topic", "said"),
    [
        ("error: You must be logged in to the server (Unauthorized)", "unauthorized", "401"),
        (
            'Error from server (Forbidden): jobs.batch is forbidden: User "ann" cannot list resource "jobs" in API '
            'group "batch" in the namespace "lab"',
            "forbidden",
            'User "ann" cannot list resource "jobs"',
        ),
        (
            'Error from server (Forbidden): error when creating "STDIN": pods "x" is forbidden: exceeded quota: '
            "gpus, requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=8, limited: 8",
            "quota",
            "quota gpus is used up (requested: requests.nvidia.com/gpu=8",
        ),
        ('Error from server (NotFound): namespaces "lab" not found', "namespace", "no namespace 'lab'"),
        (
            'error: resource mapping not found for name: "x" namespace: "" from "STDIN": no matches for kind "JobSet" '
            'in version "jobset.x-k8s.io/v1alpha2"\nensure CRDs are installed first',
            "kind",
            "does not serve JobSet",
        ),
        (
            'error: Apply failed with 1 conflict: conflict with "kubectl-edit" using batch/v1: .spec.parallelism',
            "conflict",
            "(409)",
        ),
        ("Error from server (Expired): The provided continue parameter is too old", "gone", "(410)"),
        ('error: context "nope" does not exist', "context", "no context 'nope'"),
        (
            "Unable to connect to the server: getting credentials: exec: executable gke-gcloud-auth-plugin not found\n\n"
            "It looks like you are trying to use a client-go credential plugin that is not installed.",
            "plugin",
            "'gke-gcloud-auth-plugin'",
        ),
        (
            "Unable to connect to the server: getting credentials: exec: executable aws failed with exit code 255",
            "plugin",
            "aws failed with exit code 255",
        ),
        ("Unable to connect to the server: dial tcp: lookup k8s.invalid: no such host", "unreachable", "reached"),
        ("The connection to the server 127.0.0.1:1 was refused - connection refused", "unreachable", "reached"),
        ("Unable to connect to the server: net/http: TLS handshake timeout; i/o timeout", "timeout", "in time"),
        (
            "Unable to connect to the server: tls: failed to verify certificate: x509: certificate has expired or is "
            "not yet valid",
            "certificate",
            "certificate has expired",
        ),
        (
            'Error from server: admission webhook "policy.example" denied the request: images must be signed',
            "admission",
            "images must be signed",
        ),
        ('Error from server (NotFound): pods "x" not found', "not_found", 'pods "x" not found'),
        ("W1124 warning: something\nsomething \x1b[31mnew\x00", "other", "something [31mnew"),
        ("", "other", "nothing"),
    ],
)
def test_a_refusal_is_one_sentence_and_a_remedy(stderr: str, topic: str, said: str):
    refusal = explain(stderr, "lab-context")
    assert refusal.topic == topic
    assert said in refusal.message
    assert refusal.hint
    assert "\n" not in refusal.message
    assert "{" not in refusal.message + refusal.hint
    assert refusal.message.endswith(".")


def pod(phase: str = "Pending", *, container: Object | None = None, index: str = "1", **status: Any) -> Object:
    label = {"batch.kubernetes.io/job-completion-index": index}
    meta = {"name": "p", "uid": "u", "labels": label, "creationTimestamp": "2026-11-24T10:00:00Z"}
    found: Object = {"metadata": meta, "spec": {"nodeName": "machine-1"}, "status": {"phase": phase, **status}}
    if container is not None:
        found["status"]["containerStatuses"] = [{"name": "node", "state": container}]
    return found


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error") -> Object:
    return {"terminated": {"exitCode": code, "reason": reason}}


@pytest.mark.parametrize(
    ("one", "state", "said"),
    [
        (pod("Running", container={"running": {}}), RunState.RUNNING, ""),
        (pod("Succeeded", container=ended(0)), RunState.SUCCEEDED, ""),
        (pod(container=waiting("ImagePullBackOff", "no such tag")), RunState.PREPARING, "image cannot be pulled"),
        (pod("Running", container=waiting("CrashLoopBackOff")), RunState.PREPARING, "fails again and again"),
        (pod(container=waiting("CreateContainerConfigError", 'secret "k" not found')), RunState.PREPARING, '"k"'),
        (pod(container=waiting("ContainerCreating")), RunState.PREPARING, "being set up"),
        (pod("Failed", container=ended(137, "OOMKilled")), RunState.FAILED, "more memory than its limit"),
        (pod("Failed", reason="Evicted", message="disk pressure"), RunState.FAILED, "disk pressure"),
        (pod("Failed", container=ended(137)), RunState.FAILED, "killed (137)"),
        (pod("Failed", container=ended(1)), RunState.FAILED, "status 1"),
        (
            pod(
                "Failed",
                container=ended(143),
                conditions=[{"type": "DisruptionTarget", "status": "True", "message": "node is being drained"}],
            ),
            RunState.FAILED,
            "node is being drained",
        ),
    ],
)
def test_a_pod_in_words(one: Object, state: RunState, said: str):
    found = pod_status(one)
    assert (found.state, found.node) == (state, "node1")
    assert said in found.message
    assert bool(found.message) == bool(said)


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 Insufficient memory.", "nvidia.com/gpu and memory"),
        ("0/5 nodes are available: 5 node(s) didn't match Pod's node affinity/selector.", "labels"),
        ('0/5 nodes are available: persistentvolumeclaim "c" not found.', "volume claim"),
        ("0/5 nodes are available: 5 node(s) had untolerated taint {gpu: yes}.", "reserved"),
        ("waiting", "no place"),
    ],
)
def test_why_no_machine_takes_a_pod(detail: str, said: str):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": detail}
    found = pod_status(pod(conditions=[condition]))
    assert found.state is RunState.QUEUED
    assert said in found.message
    assert found.hint


def test_of_several_pods_of_a_node_the_newest_counts():
    old, new = pod("Failed", container=ended(1)), pod("Running", container={"running": {}})
    new["metadata"] |= {"uid": "v", "creationTimestamp": "2026-11-24T10:05:00Z"}
    assert latest_by_node([pod_status(new), pod_status(old)])["node1"].uid == "v"
