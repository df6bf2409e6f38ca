"""Finds this rank's device and backend, joins the process group and lays the ranks out in a mesh.

The environment (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT) is torchrun's. The device is
the accelerator that this build of torch knows (CUDA, ROCm, XPU, MPS) or the CPU; the backend follows from the device.
Importing this module imports torch.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import cast

import torch
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.specs import Device
from core.train.engine.contracts import Mesh
from core.train.parallel.layout import data_ranks
from core.train.specs.parallel import ParallelSpec
from core.train.specs.training import TrainingSpec

DIMENSIONS = ("pipeline", "replicate", "shard", "context", "tensor")


def build_mesh(spec: TrainingSpec) -> Mesh:
    """Return where this rank stands; with several ranks, join the process group first (unless this process has).

    Raises:
        EnvironmentProblem: The device asked for is missing, this host has fewer of it than ranks, or a rank did not come.
        UserError: The degrees of parallelism do not make up the number of ranks.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = find_device(spec.device, local_rank)
    if world == 1:
        return Mesh(device=device)
    data = data_ranks(spec.parallel, world // spec.parallel.processes)
    if data * spec.parallel.model_ranks != world:
        raise UserError(
            f"{world} ranks are not a multiple of tensor x pipeline x context = {spec.parallel.model_ranks}.",
            "Change the number of processes or the degrees of parallelism.",
        )
    if not dist.is_initialized():
        _join(device, spec.parallel.timeout_s)
    return _placed(spec.parallel, device, data, rank, local_rank)


def close_mesh() -> None:
    """Leave the process group; does nothing in a single process."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def find_device(asked: Device, local_rank: int) -> torch.device:
    """Return the device of a rank, and make it the current one.

    Args:
        asked: As in the spec; ``auto`` takes the accelerator if there is one.
        local_rank: Number of the rank on this host, which takes the accelerator of the same number.

    Raises:
        EnvironmentProblem: There is no such device, or fewer than ranks.
    """
    kind = check_device(asked, local_rank + 1)
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "mps":
        torch.accelerator.set_device_index(local_rank)
    return torch.device(kind, local_rank)


def check_device(asked: Device, processes: int) -> str:
    """Return the type of device that so many processes of this host would run on.

    Raises:
        EnvironmentProblem: There is no such device, or fewer than processes.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if asked == "cpu" or (asked == "auto" and found is None):
        return "cpu"
    if found is None or asked not in ("auto", found.type):
        raise EnvironmentProblem(
            f"PyTorch finds no {asked} device on this machine.",
            "Choose the device 'auto', or install the PyTorch build for it.",
        )
    count = torch.accelerator.device_count()
    if processes > count:
        raise EnvironmentProblem(
            f"{processes} processes need as many {found.type} devices on this host, but PyTorch sees {count}.",
            f"Start at most {count} processes on this host, or choose the device 'cpu'.",
        )
    return found.type


def _join(device: torch.device, timeout_s: float) -> None:
    backend = dist.get_default_backend_for_device(device)
    if device.type != "cpu":
        if not dist.is_backend_available(backend):
            raise EnvironmentProblem(
                f"This build of PyTorch has no {backend}, which several ranks on {device.type} need.",
                "Train in one process, choose the device 'cpu', or install the PyTorch build that has it.",
            )
        backend = f"cpu:gloo,{device.type}:{backend}"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        raise EnvironmentProblem(
            f"The ranks did not find each other within {timeout_s:.0f} s: {error}",
            "See whether a rank failed before it, and whether the hosts reach each other's ports.",
        ) from error


def _placed(parallel: ParallelSpec, device: torch.device, data: int, rank: int, local_rank: int) -> Mesh:
    replicas = data if parallel.sharding == "none" else parallel.replicas
    if data % replicas:
        raise UserError(
            f"{parallel.replicas} sharded replicas do not divide the {data} data ranks.",
            "Choose a divisor of the data ranks.",
        )
    sizes = (parallel.pipeline, replicas, data // replicas, parallel.context, parallel.tensor)
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=DIMENSIONS)
    place = dict(zip(DIMENSIONS, cast("list[int]", mesh.get_coordinate()), strict=True))
    return Mesh(
        device=device,
        rank=rank,
        world=dist.get_world_size(),
        local_rank=local_rank,
        data_rank=place["replicate"] * (data // replicas) + place["shard"],
        data_size=data,
        replicas=replicas,
        tensor_rank=place["tensor"],
        tensor_size=parallel.tensor,
        pipeline_rank=place["pipeline"],
        pipeline_size=parallel.pipeline,
        context_rank=place["context"],
        context_size=parallel.context,
        device_mesh=mesh,
    )


def submesh(mesh: Mesh, *dimensions: str) -> DeviceMesh | None:
    """Return the part of the mesh along some dimensions that this rank is in, flattened; None when it is one rank.

    Called by all ranks alike, since it may make a process group.
    """
    if mesh.device_mesh is None:
        return None
    used = tuple(name for name in dimensions if mesh.device_mesh[name].size() > 1)
    if not used:
        return None
    if len(used) == 1:
        return mesh.device_mesh[used[0]]
    return mesh.device_mesh[used]._flatten("_".join(used))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] the only way


def group_of(mesh: Mesh, *dimensions: str) -> dist.ProcessGroup | None:
    """Return the process group along some dimensions of the mesh; None when it is one rank."""
    part = submesh(mesh, *dimensions)
    return part.get_group() if part is not None else None
