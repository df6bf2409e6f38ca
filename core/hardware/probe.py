"""What this host is made of, read in a fraction of a second; the hardware page and a run's environment record show it.

psutil and small system files tell about the host, the vendors' readers about the GPUs. Nothing is measured here
(``roofline.py`` does that), and no compute library is imported.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import msgspec
import psutil

from core.contracts.telemetry import DiskInfo, GpuInfo, GpuProcess, HardwareProblem, HardwareReport, MemoryInfo
from core.hardware.cpu import cpu_info
from core.hardware.limits import control_group, read_text
from core.hardware.reading import attempt
from core.hardware.vendors import GpuReader, open_readers

_SYSTEM_FILESYSTEMS = frozenset(
    {"squashfs", "iso9660", "devtmpfs", "proc", "sysfs", "cgroup", "cgroup2", "tmpfs", "overlay"}
)

_DEVICE_FILES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/dxg")
_HOST_PID_NAMESPACE = 0xEFFFFFFC
"""Number that Linux gives the host's own space of pids; a container with pids of its own has another."""


def probe(readers: tuple[GpuReader, ...] | None = None) -> HardwareReport:
    """Describe this host. Never raises; what cannot be read is empty or None. Thread: any.

    Args:
        readers: The GPU vendors' readers to ask, which stay open; by default all there are, opened and closed here.
    """
    own = open_readers() if readers is None else ()
    try:
        gpus, holders, problems = _gpus(own if readers is None else readers)
    finally:
        for reader in own:
            reader.close()
    group = control_group()
    return HardwareReport(
        host=platform.node(),
        system=_system(),
        kernel=f"{platform.system()} {platform.release()}",
        container=_container(),
        cpu=cpu_info(group.quota_cores),
        memory=_memory(group.memory_limit_bytes),
        disks=_disks(),
        gpus=gpus,
        gpu_processes=holders,
        problems=problems,
    )


def _gpus(
    readers: tuple[GpuReader, ...],
) -> tuple[tuple[GpuInfo, ...], tuple[GpuProcess, ...], tuple[HardwareProblem, ...]]:
    gpus: list[GpuInfo] = []
    holders: list[GpuProcess] = []
    for reader in readers:
        first = len(gpus)
        gpus += reader.describe(first)
        holders += reader.processes(first)
    problems = tuple(problem for reader in readers for problem in reader.problems)
    return tuple(gpus), tuple(map(_named, holders)), problems


def _named(holder: GpuProcess) -> GpuProcess:
    """Add program and user, unless the pid may belong to another process (an old driver inside a container)."""
    process = attempt(lambda: psutil.Process(holder.pid))
    if process is None or not _surely_holds_gpu(holder.pid):
        return holder
    return msgspec.structs.replace(holder, name=attempt(process.name) or "", user=attempt(process.username) or "")


def _surely_holds_gpu(pid: int, proc: Path = Path("/proc")) -> bool:
    """Tell whether a process has a GPU's device file open; where that may not be looked at, trust the host's own pids."""
    if sys.platform != "linux":
        return True
    try:
        targets = [str(link.readlink()) for link in (proc / str(pid) / "fd").iterdir()]
    except OSError:
        return attempt(lambda: (proc / "self" / "ns" / "pid").stat().st_ino) == _HOST_PID_NAMESPACE
    return any(target.startswith(_DEVICE_FILES) for target in targets)


def _system() -> str:
    if sys.platform == "linux":
        release = attempt(platform.freedesktop_os_release) or {}
        return release.get("PRETTY_NAME", "Linux")
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {platform.release()}".strip()


def _container() -> str:
    """Return ``docker``, ``podman``, ``kubernetes``, ``wsl`` or what systemd calls it; empty on plain metal or a VM."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if Path("/run/.containerenv").exists():
        return "podman"
    if Path("/.dockerenv").exists():
        return "docker"
    if "microsoft" in platform.release().lower():
        return "wsl"
    return read_text(Path("/run/systemd/container")).strip()


def _memory(limit_bytes: int | None) -> MemoryInfo:
    memory = attempt(psutil.virtual_memory)
    swap = attempt(psutil.swap_memory)
    return MemoryInfo(
        total_bytes=memory.total if memory else 0,
        available_bytes=memory.available if memory else 0,
        swap_total_bytes=swap.total if swap else 0,
        limit_bytes=limit_bytes,
    )


def _disks() -> tuple[DiskInfo, ...]:
    """Return the disks a user can store on; the root is always among them, even where it is a container's overlay."""
    found: dict[str, DiskInfo] = {}
    for part in attempt(lambda: psutil.disk_partitions(all=True)) or []:
        is_root = part.mountpoint == Path.cwd().anchor
        is_real = (
            part.fstype
            and part.fstype not in _SYSTEM_FILESYSTEMS
            and not re.match(r"^/(proc|sys|dev|run)(/|$)", part.mountpoint)
        )
        # A network mount may hang for minutes when its server is away, so its size is not asked for here.
        is_network = part.fstype.startswith(("nfs", "cifs", "smb", "fuse.sshfs", "9p", "ceph", "lustre"))
        if part.device in found or not (is_root or (is_real and not is_network)):
            continue
        usage = attempt(lambda mount=part.mountpoint: psutil.disk_usage(mount))
        if usage is not None and usage.total > 0:
            found[part.device] = DiskInfo(
                mount=part.mountpoint,
                device=part.device,
                filesystem=part.fstype,
                total_bytes=usage.total,
                free_bytes=usage.free,
            )
    return tuple(found.values())
