"""Which devices of its host a node of a run asks for, and how its workers are told which they have.

A device is named by its GPU's index, or ``cpu``: a host without a GPU counts as one device. Leasing is ``core.jobs.queue``'s
work; under Slurm and Kubernetes the cluster hands devices out, so nothing is asked for and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.contracts.errors import UserError
from core.contracts.hosts import LOCAL_HOST
from core.contracts.placement import NodePlacement, Placement
from core.contracts.specs import LaunchSpec

CPU = "cpu"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """Devices asked for.

    Attributes:
        exact: Their names; empty when any will do, or when none is leased (``count`` 0).
        count: How many.
        is_hidden: All GPUs are to be hidden from the workers.
        is_open: The workers see every GPU, whatever is leased: nothing was chosen.
    """

    exact: tuple[str, ...] = ()
    count: int = 0
    is_hidden: bool = False
    is_open: bool = False

    @property
    def wants_cpu(self) -> bool:
        """It is about the host as such, not about its GPUs."""
        return self.exact == (CPU,)

    def conflicts_with(self, other: DeviceRequest) -> bool:
        """Tell whether both could want the same device."""
        if not self.exact or not other.exact:
            return self.wants_cpu == other.wants_cpu
        return not set(self.exact).isdisjoint(other.exact)


def devices_for_host(devices: str, host: str) -> str:
    """Return what ``launch.devices`` says for one host: ``auto``, ``cpu`` or indices.

    Args:
        devices: Such as ``auto``, ``cpu``, ``0,1``, or ``a=0,1 b=cpu`` by host; a host not named gets ``auto``.
        host: The host's name.
    """
    text = devices.strip()
    if "=" not in text:
        return text or "auto"
    by_host = dict(part.split("=", 1) for part in text.split() if "=" in part)
    return by_host.get(host or LOCAL_HOST, "auto")


def parse_indices(text: str) -> tuple[int, ...]:
    """Return GPU indices such as ``0,1,3``, in the order given.

    Raises:
        UserError: It is something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or len(set(found)) != len(found) or min(found) < 0:
        raise UserError(f"{text!r} names no GPUs.", "Write auto, cpu, or indices such as 0,1.")
    return found


def request_for(
    launch: LaunchSpec, placement: Placement, placed: NodePlacement, gpus: Mapping[int, str]
) -> DeviceRequest:
    """Return what a node asks of its host.

    Args:
        launch: How the run is to be launched.
        placement: Where the run is.
        placed: The node.
        gpus: The host's GPUs: index, and the name that makes it visible.

    Raises:
        UserError: It asks for GPUs that the host has not.
    """
    if placement.engine != "direct":
        return DeviceRequest(is_open=True)
    asked = devices_for_host(launch.devices, placed.host)
    if asked == CPU:
        return DeviceRequest((CPU,), 1, is_hidden=bool(gpus))
    if asked != "auto":
        return _exactly(parse_indices(asked), gpus)
    if not gpus:
        return DeviceRequest((CPU,), 1, is_open=True)
    if launch.queue:
        return _any(placed.processes, gpus)
    if placed.devices:
        return _exactly(placed.devices, gpus)
    if placed.host in ("", LOCAL_HOST):
        return DeviceRequest(tuple(map(str, sorted(gpus))), len(gpus), is_open=True)
    return DeviceRequest((CPU,), 1, is_hidden=True)


def _exactly(indices: tuple[int, ...], gpus: Mapping[int, str]) -> DeviceRequest:
    missing = [index for index in indices if index not in gpus]
    if missing:
        there = f"It has {', '.join(map(str, sorted(gpus)))}." if gpus else "It has none."
        raise UserError(f"The host has no GPU {', '.join(map(str, missing))}.", f"{there} Choose other devices.")
    return DeviceRequest(tuple(map(str, indices)), len(indices))


def _any(count: int, gpus: Mapping[int, str]) -> DeviceRequest:
    if count > len(gpus):
        message = f"The run asks for {count} GPUs and the host has {len(gpus)}."
        raise UserError(message, "Start fewer processes there, or choose the devices cpu.")
    return DeviceRequest((), count)


def visible_environment(request: DeviceRequest, held: tuple[str, ...], gpus: Mapping[int, str]) -> dict[str, str]:
    """Return the variables that show the workers the devices they hold, and no others.

    Args:
        request: What was asked for.
        held: Names of the devices leased, or those asked for when none is leased.
        gpus: As for ``request_for``.
    """
    if request.is_open:
        return {}
    if request.is_hidden:
        return {_VISIBLE: ""}
    names = [gpus[int(name)] for name in (held or request.exact) if name != CPU and int(name) in gpus]
    # Indices count as the driver's tools do, and not by speed as CUDA does by itself.
    return {_VISIBLE: ",".join(names), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if names else {}
