"""From a spec to the objects of a cluster: an indexed Job with its headless Service, a JobSet, or Kubeflow's TrainJob.

Beside it a ConfigMap holds the spec, the placement and, when it is small enough, the code. Everything is made here from
the spec alone and asks no cluster; ``validation`` holds it against the schemas before it leaves.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from core.contracts.errors import FieldProblem, InvalidSpec
from core.contracts.placement import Placement
from core.contracts.specs import RunSpec
from core.fleet.kubernetes import code_archive, pod_template
from core.fleet.kubernetes.names import CONTAINER, MANAGER, REPLICATED_JOB, object_name, selector
from core.fleet.kubernetes.placement import pod_placement
from core.fleet.kubernetes.problems import problems
from core.fleet.kubernetes.validation import validate
from core.fleet.kubernetes.yaml_text import dump_all
from core.plugins.decode import encode_spec
from core.plugins.registry import registry
from core.runlog.layout import PLACEMENT, SPEC

Object = dict[str, Any]

CODE_FILE = "code.tar.gz"
TORCH_RUNTIME = "torch-distributed"
"""The ClusterTrainingRuntime for torch that Kubeflow Trainer brings along."""
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesLaunch:
    """All that a launch needs: what the cluster is given, and what stands in the run directory here.

    Attributes:
        manifest: YAML of all objects, validated.
        placement: The nodes; also inside of the manifest.
    """

    run_id: str
    manifest: str
    placement: Placement


def prepare(spec: RunSpec, run_id: str, *, attempt: int = 1) -> KubernetesLaunch:
    """Return the manifest of a run and its placement.

    Args:
        spec: What to run; complete.
        run_id: The run.
        attempt: 1 on the first start; a later one needs a volume claim.

    Raises:
        InvalidSpec: Lists everything that cannot be asked of Kubernetes.
        UserError: The code is too large to travel along.
        EnvironmentProblem: The code cannot be read.
    """
    found = (*problems(spec, attempt), *_code_problems(spec))
    if found:
        raise InvalidSpec(found, "The request to Kubernetes")
    folder = _code_folder(spec)
    placement = pod_placement(spec, run_id, attempt=attempt, code_folder=folder)
    code = code_archive.pack(Path(folder), spec.launch.exclude) if folder else b""
    objects = [_config_map(spec, run_id, placement, code), *_work(spec, run_id)]
    validate(objects)
    return KubernetesLaunch(run_id=run_id, manifest=dump_all(objects), placement=placement)


def manifest(spec: RunSpec, run_id: str) -> str:
    """Return the YAML that a launch would apply; raises as ``prepare``."""
    return prepare(spec, run_id).manifest


def _code_folder(spec: RunSpec) -> str:
    """Return the folder of code that travels along; empty when the pods see it by themselves."""
    if spec.launch.copy_code == "shared":
        return ""
    return registry().get(str(spec.__struct_config__.tag)).code_folder(spec)


def _code_problems(spec: RunSpec) -> tuple[FieldProblem, ...]:
    folder = _code_folder(spec)
    if not folder or Path(folder).is_dir():
        return ()
    hint = "Choose 'shared' for code that is on the volume or in the image."
    return (FieldProblem(field="launch.copy_code", message=f"there is no folder {folder!r}.", hint=hint),)


def _metadata(run_id: str, *, queue: str = "") -> Object:
    labels = pod_template.labels(run_id) | ({_QUEUE_LABEL: queue} if queue else {})
    return {"name": object_name(run_id), "labels": labels}


def _config_map(spec: RunSpec, run_id: str, placement: Placement, code: bytes) -> Object:
    text = msgspec.json.format(msgspec.json.encode(placement)).decode()
    found: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(run_id),
        "data": {SPEC: encode_spec(spec), PLACEMENT: f"{text}\n"},
    }
    if code:
        found["binaryData"] = {CODE_FILE: base64.b64encode(code).decode()}
    return found


def _work(spec: RunSpec, run_id: str) -> list[Object]:
    match spec.launch.kubernetes.form:
        case "job":
            return [_service(run_id), _job(spec, run_id)]
        case "jobset":
            return [_job_set(spec, run_id)]
        case "trainjob":
            return [_train_job(spec, run_id)]


def _service(run_id: str) -> Object:
    """Give each pod a DNS name, from its start on: torchrun's nodes meet by them."""
    key, _, value = selector(run_id).partition("=")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(run_id),
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {key: value}},
    }


def _job_spec(spec: RunSpec, run_id: str, backoff_limit: int) -> Object:
    asked = spec.launch.kubernetes
    found: Object = {
        "completionMode": "Indexed",
        "completions": asked.nodes,
        "parallelism": asked.nodes,
        "backoffLimit": backoff_limit,
    }
    if asked.volume_claim:
        # A pod that the cluster itself takes away (a drained or pre-empted node) is replaced and goes on from its
        # checkpoint; that is no failure of the run.
        disruption = {"type": "DisruptionTarget", "status": "True"}
        found["podFailurePolicy"] = {"rules": [{"action": "Ignore", "onPodConditions": [disruption]}]}
    return {**found, "template": pod_template.pod_template(spec, run_id)}


def _job(spec: RunSpec, run_id: str) -> Object:
    asked = spec.launch.kubernetes
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(run_id, queue=asked.queue),
        # When one node fails the others end too, and each of their pods counts.
        "spec": _job_spec(spec, run_id, asked.retries * asked.nodes),
    }


def _job_set(spec: RunSpec, run_id: str) -> Object:
    asked = spec.launch.kubernetes
    work: Object = {
        "name": REPLICATED_JOB,
        "replicas": 1,
        "template": {
            "metadata": {"labels": pod_template.labels(run_id)},
            "spec": _job_spec(spec, run_id, 0),
        },
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(run_id, queue=asked.queue),
        "spec": {
            "network": {
                "enableDNSHostnames": True,
                "publishNotReadyAddresses": True,
                "subdomain": object_name(run_id),
            },
            "failurePolicy": {"maxRestarts": asked.retries},
            "replicatedJobs": [work],
        },
    }


def _train_job(spec: RunSpec, run_id: str) -> Object:
    asked = spec.launch.kubernetes
    trainer: Object = {
        "image": asked.image,
        "numNodes": asked.nodes,
        "command": pod_template.command(spec, run_id),
        "env": pod_template.environment(),
    }
    if sizes := pod_template.resources(asked):
        trainer["resourcesPerNode"] = sizes
    pod: Object = {
        "metadata": {"labels": pod_template.labels(run_id)},
        "spec": {
            "terminationGracePeriodSeconds": pod_template.grace_s(spec),
            **pod_template.scheduling(asked),
            "containers": [{"name": CONTAINER, "volumeMounts": pod_template.mounts(asked)}],
            "volumes": pod_template.volumes(asked, run_id),
        },
    }
    job = {"metadata": {"labels": pod_template.labels(run_id)}, "spec": {"template": pod}}
    patch = {
        "metadata": {"labels": pod_template.labels(run_id)},
        "spec": {"replicatedJobs": [{"name": REPLICATED_JOB, "template": job}]},
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": _metadata(run_id, queue=asked.queue),
        "spec": {
            "runtimeRef": {"name": TORCH_RUNTIME},
            "trainer": trainer,
            "runtimePatches": [
                {"manager": f"{MANAGER}.dev/launcher", "trainingRuntimeSpec": {"template": patch}},
            ],
        },
    }
