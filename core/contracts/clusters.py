"""What a launch on a cluster asks of Slurm or Kubernetes; parts of ``LaunchSpec``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class SlurmSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job of Slurm: the options of ``sbatch``. Empty or 0 leaves a choice to the cluster."""

    cluster: Annotated[
        str,
        Meta(title="Slurm cluster", description="Name of the host whose Slurm takes the job; empty: no Slurm."),
    ] = ""
    nodes: Annotated[int, Meta(title="Nodes", ge=1, le=10_000, description="Nodes of the job (--nodes).")] = 1
    partition: Annotated[str, Meta(title="Partition", description="Queue of the cluster (--partition).")] = ""
    account: Annotated[str, Meta(title="Account", description="Account that is charged (--account).")] = ""
    qos: Annotated[str, Meta(title="QoS", description="Quality of service (--qos).")] = ""
    time_limit: Annotated[
        str,
        Meta(title="Time limit", description="Such as 30 (minutes), 4:00:00 or 2-00:00:00 (--time)."),
    ] = ""
    gres: Annotated[str, Meta(title="Generic resources", description="Such as gpu:4 for each node (--gres).")] = ""
    constraint: Annotated[str, Meta(title="Constraint", description="Features a node must have (--constraint).")] = ""
    cpus_per_node: Annotated[
        int, Meta(title="CPUs per node", ge=0, le=10_000, description="--cpus-per-task of the one task per node.")
    ] = 0
    memory: Annotated[str, Meta(title="Memory", description="For each node, such as 64G (--mem).")] = ""
    warn_s: Annotated[
        int,
        Meta(
            title="Warning",
            ge=0,
            le=3600,
            description="How long before the time limit the run is told to save and end (--signal).",
            extra_json_schema={"unit": "s"},
        ),
    ] = 120
    requeues: Annotated[
        int,
        Meta(
            title="Requeues",
            ge=0,
            le=100,
            description="How often the job goes back into the queue after a failed node or its time limit.",
        ),
    ] = 0
    options: Annotated[
        tuple[str, ...],
        Meta(title="Further options", description="More lines for #SBATCH, such as --exclude=node7."),
    ] = ()


class KubernetesSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job of Kubernetes. Empty or 0 leaves a choice to the cluster."""

    context: Annotated[
        str, Meta(title="Kubernetes context", description="Context of the kubeconfig; empty: no Kubernetes.")
    ] = ""
    namespace: Annotated[str, Meta(title="Namespace", description="Empty for the context's own.")] = ""
    form: Annotated[
        Literal["job", "jobset", "trainjob"],
        Meta(
            title="Form",
            description="An indexed Job needs no operator; JobSet and Kubeflow's TrainJob need theirs on the cluster.",
        ),
    ] = "job"
    nodes: Annotated[int, Meta(title="Pods", ge=1, le=10_000, description="One pod is one node of the run.")] = 1
    image: Annotated[
        str, Meta(title="Image", description="Container image with Python, torch and Pilothouse's worker package.")
    ] = ""
    gpus_per_node: Annotated[int, Meta(title="GPUs per pod", ge=0, le=64, description="Limit of the GPU resource.")] = 0
    gpu_resource: Annotated[str, Meta(title="GPU resource", description="Such as nvidia.com/gpu or amd.com/gpu.")] = (
        "nvidia.com/gpu"
    )
    cpu: Annotated[str, Meta(title="CPU", description="Requested for each pod, such as 4 or 500m.")] = ""
    memory: Annotated[str, Meta(title="Memory", description="Requested for each pod, such as 16Gi.")] = ""
    shm: Annotated[
        str, Meta(title="Shared memory", description="Size of /dev/shm, such as 8Gi; data loaders need it.")
    ] = ""
    volume_claim: Annotated[
        str,
        Meta(
            title="Volume claim",
            description="PersistentVolumeClaim for the run directories; empty: lost with the pods.",
        ),
    ] = ""
    mount_path: Annotated[str, Meta(title="Mount path", description="Where the volume claim is mounted.")] = (
        "/pilothouse"
    )
    secrets: Annotated[
        tuple[str, ...],
        Meta(title="Secrets", description="Names of Secrets whose keys become environment variables."),
    ] = ()
    image_pull_secret: Annotated[str, Meta(title="Pull secret", description="Secret for a private registry.")] = ""
    service_account: Annotated[str, Meta(title="Service account", description="ServiceAccount of the pods.")] = ""
    node_selector: Annotated[
        dict[str, str], Meta(title="Node selector", description="Labels that a node must have.")
    ] = {}
    queue: Annotated[str, Meta(title="Kueue queue", description="Name of a LocalQueue; empty: none.")] = ""
    retries: Annotated[
        int, Meta(title="Retries", ge=0, le=100, description="Restarts after a failure (backoffLimit).")
    ] = 0
