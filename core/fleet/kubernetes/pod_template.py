"""The pod of a run: one container that is one node of the run, what is mounted into it, and what it asks for.

No shell is in it and no text of the user's is in its command but the mount path, in which ``$`` is doubled: Kubernetes
would put variables in.
"""

from __future__ import annotations

from typing import Any

from core.contracts.clusters import KubernetesSpec
from core.contracts.specs import RunSpec
from core.fleet.kubernetes.names import CONTAINER, RUN_LABEL, label_value, object_name
from core.fleet.kubernetes.problems import CONFIG_MOUNT

Object = dict[str, Any]

FILES_MOUNT = f"{CONFIG_MOUNT}/run"
SECRETS_MOUNT = f"{CONFIG_MOUNT}/secrets"
GRACE_MARGIN_S = 30
"""Beyond the run's own grace: to end what is left and to print the last lines."""
_FIELDS = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_NODE": "spec.nodeName"}


def literal(text: str) -> str:
    """Return a word for a command in which Kubernetes finds no variable to put in."""
    return text.replace("$", "$$")


def command(spec: RunSpec, run_id: str) -> list[str]:
    """Return the words that start the pod's entry point."""
    asked = spec.launch.kubernetes
    words = ["python", "-P", "-m", "core.cli.pod", "--run", run_id]
    words += ["--files", FILES_MOUNT, "--home", literal(asked.mount_path.rstrip("/"))]
    if asked.form == "trainjob" and asked.secrets:
        words += ["--secrets", SECRETS_MOUNT]
    return words


def environment() -> list[Object]:
    """Return what the pod is told of itself."""
    return [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _FIELDS.items()]


def resources(asked: KubernetesSpec) -> Object:
    """Return what the container asks for; GPUs are asked for by their limit."""
    requests = {name: size for name, size in {"cpu": asked.cpu, "memory": asked.memory}.items() if size}
    limits = {asked.gpu_resource: str(asked.gpus_per_node)} if asked.gpus_per_node else {}
    return {name: sizes for name, sizes in {"requests": requests, "limits": limits}.items() if sizes}


def volumes(asked: KubernetesSpec, run_id: str) -> list[Object]:
    """Return the pod's volumes."""
    home = {"persistentVolumeClaim": {"claimName": asked.volume_claim}} if asked.volume_claim else {"emptyDir": {}}
    found: list[Object] = [
        {"name": "run-files", "configMap": {"name": object_name(run_id)}},
        {"name": "home", **home},
    ]
    if asked.shm:
        found.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": asked.shm}})
    if asked.form == "trainjob":
        found += [
            {"name": f"secret-{index}", "secret": {"secretName": name}} for index, name in enumerate(asked.secrets)
        ]
    return found


def mounts(asked: KubernetesSpec) -> list[Object]:
    """Return where the volumes are in the container."""
    found: list[Object] = [
        {"name": "run-files", "mountPath": FILES_MOUNT, "readOnly": True},
        {"name": "home", "mountPath": asked.mount_path.rstrip("/")},
    ]
    if asked.shm:
        found.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    if asked.form == "trainjob":
        found += [
            {"name": f"secret-{index}", "mountPath": f"{SECRETS_MOUNT}/{index}", "readOnly": True}
            for index in range(len(asked.secrets))
        ]
    return found


def scheduling(asked: KubernetesSpec) -> Object:
    """Return who the pod is and where it may be."""
    found: Object = {}
    if asked.service_account:
        found["serviceAccountName"] = asked.service_account
    if asked.image_pull_secret:
        found["imagePullSecrets"] = [{"name": asked.image_pull_secret}]
    if asked.node_selector:
        found["nodeSelector"] = dict(asked.node_selector)
    return found


def grace_s(spec: RunSpec) -> int:
    """Return how many seconds a pod that is to end may take."""
    return int(spec.launch.stop_grace_s) + GRACE_MARGIN_S


def labels(run_id: str) -> dict[str, str]:
    """Return the labels of every object of a run."""
    return {RUN_LABEL: label_value(run_id), "app.kubernetes.io/managed-by": "pilothouse"}


def pod_template(spec: RunSpec, run_id: str) -> Object:
    """Return the template of the pods for a Job; its subdomain is the headless service."""
    asked = spec.launch.kubernetes
    container: Object = {
        "name": CONTAINER,
        "image": asked.image,
        "command": command(spec, run_id),
        "env": environment(),
    }
    if asked.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in asked.secrets]
    if sizes := resources(asked):
        container["resources"] = sizes
    container["volumeMounts"] = mounts(asked)
    return {
        "metadata": {"labels": labels(run_id)},
        "spec": {
            "restartPolicy": "Never",
            "subdomain": object_name(run_id),
            "terminationGracePeriodSeconds": grace_s(spec),
            "enableServiceLinks": False,
            **scheduling(asked),
            "containers": [container],
            "volumes": volumes(asked, run_id),
        },
    }
