"""What is wrong with a spec's request to Kubernetes, before any cluster is asked: every problem with its field."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.contracts.clusters import KubernetesSpec
from core.contracts.errors import FieldProblem
from core.contracts.specs import RunSpec
from core.plugins.registry import registry

CONFIG_MOUNT = "/etc/pilothouse"
_PART = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_LABEL = re.compile(rf"{_PART}")
_SUBDOMAIN = re.compile(rf"{_PART}(?:\.{_PART})*")
_QUALIFIED = re.compile(rf"(?:{_PART}(?:\.{_PART})*/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"\d+(?:\.\d+)?(?:m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE]\d+)?")
_NAME_HINT = "Use lower-case letters, digits, - and . only, as the cluster shows it."
_QUANTITY_HINT = "Use a number with a unit, such as 4, 500m or 16Gi."


def _at(field: str, message: str, hint: str) -> FieldProblem:
    return FieldProblem(field=f"launch.kubernetes.{field}", message=message, hint=hint)


def _names(asked: KubernetesSpec) -> Iterator[FieldProblem]:
    named = {
        "volume_claim": asked.volume_claim,
        "image_pull_secret": asked.image_pull_secret,
        "service_account": asked.service_account,
        "queue": asked.queue,
    }
    pairs = [*named.items(), *(("secrets", name) for name in asked.secrets)]
    for field, name in pairs:
        if (name or field == "secrets") and (len(name) > 253 or not _SUBDOMAIN.fullmatch(name)):
            yield _at(field, f"{name!r} is not a name in Kubernetes.", _NAME_HINT)
    if asked.namespace and (len(asked.namespace) > 63 or not _LABEL.fullmatch(asked.namespace)):
        yield _at("namespace", f"{asked.namespace!r} is not a name of a namespace.", _NAME_HINT)
    if not _QUALIFIED.fullmatch(asked.gpu_resource):
        yield _at("gpu_resource", f"{asked.gpu_resource!r} is not a resource.", "Use such as nvidia.com/gpu.")
    for key, value in asked.node_selector.items():
        if not _QUALIFIED.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield _at("node_selector", f"{key!r} = {value!r} cannot be a label.", "Use a label that a node has.")


def _sizes(asked: KubernetesSpec) -> Iterator[FieldProblem]:
    for field, text in {"cpu": asked.cpu, "memory": asked.memory, "shm": asked.shm}.items():
        if text and not _QUANTITY.fullmatch(text):
            yield _at(field, f"{text!r} is not a quantity of Kubernetes.", _QUANTITY_HINT)


def _places(asked: KubernetesSpec) -> Iterator[FieldProblem]:
    if not asked.image:
        yield _at("image", "no image is named.", "Name one with Python, torch and Pilothouse's worker package.")
    elif re.search(r"\s|[^\x21-\x7e]", asked.image):
        yield _at("image", f"{asked.image!r} is not a name of an image.", "Use such as registry.example/team/train:1.")
    path = asked.mount_path
    parts = path.split("/")
    is_taken = path.rstrip("/") in {"", "/etc", "/dev", "/proc", "/sys", "/tmp"} or path.startswith(
        (f"{CONFIG_MOUNT}/", "/dev/", "/proc/", "/sys/")
    )
    if not path.startswith("/") or ":" in path or ".." in parts or "\0" in path or "\n" in path or is_taken:
        yield _at("mount_path", f"{path!r} cannot be mounted to.", "Use a folder of its own, such as /pilothouse.")


def _wishes(spec: RunSpec, attempt: int) -> Iterator[FieldProblem]:
    asked = spec.launch.kubernetes
    kind = registry().get(str(spec.__struct_config__.tag))
    if asked.nodes > 1 and not kind.spans_nodes:
        yield _at("nodes", f"{kind.title!r} runs on one node, not on {asked.nodes}.", "Ask for 1 pod.")
    if asked.retries and asked.form == "trainjob":
        yield _at("retries", "a TrainJob's restarts are set by its runtime on the cluster.", "Use 0, or a JobSet.")
    if (asked.retries or attempt > 1) and not asked.volume_claim:
        yield _at(
            "volume_claim",
            "a pod that is started again finds nothing of its run without a volume claim.",
            "Name a claim for the run directories, or use no retries and clone the run.",
        )
    if spec.launch.copy_data:
        yield FieldProblem(
            field="launch.copy_data",
            message="data cannot be copied to a cluster.",
            hint=f"Put it on the volume claim and name its path there, such as {asked.mount_path}/data.",
        )


def problems(spec: RunSpec, attempt: int = 1) -> tuple[FieldProblem, ...]:
    """Return everything that stands against a run's manifest; reads nothing but the spec."""
    asked = spec.launch.kubernetes
    return (*_places(asked), *_names(asked), *_sizes(asked), *_wishes(spec, attempt))
