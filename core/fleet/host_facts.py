"""What a host said of itself: records made of the probe's lines (``core.fleet.probe_script``). Pure; judges nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from core.contracts.hosts import HostGpu

_KIB = 1024
_LOCAL_FILE_SYSTEMS = ("ext", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "f2fs", "jfs", "reiserfs", "ramfs", "msdos")
_NETWORK_FILE_SYSTEMS = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "fhgfs",
    "ceph",
    "cifs",
    "smb",
    "afs",
    "gluster",
    "panfs",
    "wekafs",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """The file system that holds a path.

    Attributes:
        source: What is mounted, such as ``/dev/sda1`` or ``server:/export``.
        kind: Type of the file system, such as ``nfs``; may be empty.
        is_network: True for a network file system, False for a local one, None when the type tells neither.
    """

    total_bytes: int
    free_bytes: int
    mount: str
    source: str = ""
    kind: str = ""
    is_network: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFacts:
    """A path that a run would read."""

    path: str
    exists: bool
    is_readable: bool
    disk: DiskFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFacts:
    """An interpreter found on the host; ``version`` has three numbers."""

    path: str
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Everything that one probe told.

    Attributes:
        clock_skew_s: The host's clock minus ours, give or take ``clock_doubt_s``; None when its ``date`` was not read.
        glibc: Version of glibc as two numbers; None when the host has another C library (or none was found).
        memory_total_bytes: What a process of the user may use: the machine's, or less where its control group limits it.
        limits: Soft limits by name (``open files``, ``processes``, ``locked memory``); None for unlimited.
        kills_user_processes: The host ends a user's processes when the last session of that user closes.
        work_dir: The work folder, absolute.
        gpus: NVIDIA GPUs, and who holds them: the id of a run of ours, or ``user (pid program)``.
        nvidia_problem: What ``nvidia-smi`` said when it found no GPU although a driver is there; else empty.
        other_gpus: Number of AMD and Intel GPUs by vendor name.
        driver_cuda: Newest CUDA version that the NVIDIA driver supports; None without one.
        addresses: Interface and address of every usable network address; loopback and link-local ones left out.
        index: Package index that the user's configuration of uv or pip names, without credentials.
        index_is_uv: It is named by uv's own configuration (uv does not read pip's).
        index_url: The same as it stands there; may hold credentials: never shown, never logged.
        tools: Places of programs by name (``uv``, ``conda``, ``apptainer``, ...).
        slurm_commands: Which of Slurm's commands are there.
    """

    user: str
    home: str
    hostname: str
    kernel: str
    arch: str
    os_name: str
    libc: str
    glibc: tuple[int, int] | None
    cpus: int
    memory_total_bytes: int
    memory_available_bytes: int
    clock_skew_s: float | None
    clock_doubt_s: float
    limits: dict[str, int | None]
    shm: DiskFacts | None
    kills_user_processes: bool
    work_dir: str
    work_dir_exists: bool
    is_work_dir_writable: bool
    work_disk: DiskFacts | None
    paths: tuple[PathFacts, ...] = ()
    pythons: tuple[PythonFacts, ...] = ()
    conda_envs: tuple[str, ...] = ()
    tools: dict[str, str] = field(default_factory=dict[str, str])
    gpus: tuple[HostGpu, ...] = ()
    nvidia_problem: str = ""
    driver: str = ""
    driver_cuda: tuple[int, int] | None = None
    other_gpus: dict[str, int] = field(default_factory=dict[str, int])
    rocm: str = ""
    addresses: tuple[tuple[str, str], ...] = ()
    index: str = ""
    index_url: str = field(default="", repr=False)
    index_is_uv: bool = False
    index_answers: bool = False
    slurm_commands: tuple[str, ...] = ()
    slurm_version: str = ""
    slurm_partitions: tuple[str, ...] = ()

    def newest_python(self, oldest: tuple[int, int]) -> PythonFacts | None:
        """Return the interpreter to build on: 3.12 and 3.11 before newer ones, for which not all packages are built."""
        usable = [python for python in self.pythons if python.version[:2] >= oldest]
        return min(usable, key=lambda python: (python.version[:2] > (3, 13), -python.version[1]), default=None)


class _Said:
    """The probe's answers by key; a key may have several."""

    def __init__(self, output: bytes, mark: str) -> None:
        self._values: dict[str, list[str]] = {}
        for raw in output.decode(errors="replace").split("\n"):
            _, found, answer = raw.partition(f"{mark} ")
            key, tab, value = answer.partition("\t")
            if found and tab:
                self._values.setdefault(key, []).append(value.strip())

    def all(self, key: str) -> list[str]:
        return [value for value in self._values.get(key, []) if value]

    def one(self, key: str) -> str:
        return next(iter(self.all(key)), "")

    def number(self, key: str) -> int:
        found = re.match(r"\d+", self.one(key))
        return int(found[0]) if found else 0

    def is_yes(self, key: str) -> bool:
        return self.one(key) == "yes"

    def disk(self, key: str) -> DiskFacts | None:
        # Some names of devices hold spaces, so the numbers are looked for from the left and the mount takes the rest.
        found = re.match(r"(.*?)\s+(\d+)\s+(\d+)\s+(-?\d+)\s+[\d-]+%?\s+(.*)", self.one(f"{key}.disk"))
        if found is None:
            return None
        source, total, _, free, mount = found.groups()
        kind = self.one(f"{key}.fs")
        return DiskFacts(
            total_bytes=int(total) * _KIB,
            free_bytes=max(int(free), 0) * _KIB,
            mount=mount,
            source=source,
            kind=kind,
            is_network=_is_network(kind, source),
        )


def _is_network(kind: str, source: str) -> bool | None:
    if kind.startswith(_NETWORK_FILE_SYSTEMS) or re.match(r"[^/:]+:/|//", source):
        return True
    return False if kind.startswith(_LOCAL_FILE_SYSTEMS) else None


def absolute(work_dir: str, home: str) -> str:
    """Return a work folder with ``~`` replaced by the user's home on the host."""
    if work_dir == "~" or work_dir.startswith("~/"):
        return home.rstrip("/") + work_dir[1:]
    return work_dir


def facts_of(
    output: bytes,
    mark: str,
    *,
    work_dir: str,
    paths: Sequence[str] = (),
    asked_between: tuple[float, float] = (0.0, 0.0),
) -> HostFacts | None:
    """Return what the probe's output tells; None when it did not run to its end.

    Args:
        output: Everything that the host printed, whatever a login shell added to it.
        mark: Begins every line of the probe's.
        work_dir: The work folder that was asked about; may begin with ``~``.
        paths: The paths that were asked about, in order.
        asked_between: Our clock in Unix seconds just before and after.
    """
    said = _Said(output, mark)
    if not said.one("end"):
        return None
    skew, doubt = _clock(said, asked_between)
    memory = _memory(said)
    return HostFacts(
        **{name: said.one(name) for name in ("user", "home", "hostname", "kernel", "arch", "libc", "rocm")},
        os_name=said.one("os"),
        glibc=_two_numbers(said.one("libc")) if said.one("libc").startswith("glibc") else None,
        cpus=said.number("cpus"),
        memory_total_bytes=memory[0],
        memory_available_bytes=memory[1],
        clock_skew_s=skew,
        clock_doubt_s=doubt,
        limits=_limits(said),
        shm=said.disk("shm"),
        kills_user_processes=said.one("kill_user_processes").lower() in {"yes", "1", "true", "on"}
        and not said.is_yes("linger"),
        work_dir=absolute(work_dir, said.one("home")),
        work_dir_exists=said.is_yes("work.exists"),
        is_work_dir_writable=said.is_yes("work.writable"),
        work_disk=said.disk("work"),
        paths=tuple(_path(said, number, path) for number, path in enumerate(paths)),
        pythons=_pythons(said),
        conda_envs=tuple(said.all("conda_env")),
        tools={tool: said.one(f"tool.{tool}") for tool in _TOOLS if said.one(f"tool.{tool}")},
        **_accelerators(said),
        **_network(said),
        slurm_commands=tuple(tool for tool in _SLURM if said.is_yes(f"slurm.{tool}")),
        slurm_version=said.one("slurm.version"),
        slurm_partitions=tuple(said.all("slurm.partition")),
    )


def _accelerators(said: _Said) -> dict[str, Any]:
    gpus = _gpus(said)
    return {
        "gpus": gpus,
        "nvidia_problem": "" if gpus or not said.is_yes("nvidia.device") else said.one("nvidia.head")[:300],
        "driver": next((line.split(",")[4].strip() for line in said.all("nvidia.gpu") if line.count(",") >= 5), ""),
        "driver_cuda": _two_numbers(said.one("nvidia.head").partition("CUDA Version:")[2]),
        "other_gpus": _other_gpus(said),
    }


def _network(said: _Said) -> dict[str, Any]:
    index = said.one("index")
    return {
        "addresses": _addresses(said),
        "index": _without_credentials(index),
        "index_url": index,
        "index_is_uv": said.is_yes("index.is_uv"),
        "index_answers": said.one("index.answers").startswith(("2", "3")),
    }


_TOOLS = ("uv", "conda", "mamba", "micromamba", "apptainer", "singularity", "docker", "bash", "curl")
_SLURM = ("sinfo", "sbatch", "squeue", "sacct", "scontrol")


def _two_numbers(text: str) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _clock(said: _Said, asked_between: tuple[float, float]) -> tuple[float | None, float]:
    """Return skew and half the time on the way: the host read its clock at the start and at the end of the probe."""
    times = [re.match(r"\d+(\.\d+)?", said.one(key)) for key in ("start", "end")]
    if times[0] is None or times[1] is None:
        return None, 0.0
    # Without %N the reading is cut off to whole seconds: half a second later is the best guess.
    start, end = (float(found[0]) + (0.0 if found[1] else 0.5) for found in times if found)
    on_the_way = max(asked_between[1] - asked_between[0] - (end - start), 0.0)
    return start - (asked_between[0] + on_the_way / 2), on_the_way / 2 + (0.0 if times[0][1] else 0.5)


def _memory(said: _Said) -> tuple[int, int]:
    table = dict(re.findall(r"(\w+):\s+(\d+) kB", "\n".join(said.all("meminfo"))))
    total, available = (int(table.get(name, 0)) * _KIB for name in ("MemTotal", "MemAvailable"))
    limit = said.number("memory_limit")
    return (min(total, limit) if limit else total), (min(available, limit) if limit else available)


def _limits(said: _Said) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for line in said.all("limits"):
        matched = re.match(r"Max ([a-z ]+?)\s{2,}(\S+)", line)
        if matched:
            found[matched[1]] = None if matched[2] == "unlimited" else int(matched[2])
    return found


def _path(said: _Said, number: int, path: str) -> PathFacts:
    readable = said.is_yes(f"path.{number}.readable")
    return PathFacts(
        path=path,
        exists=readable or said.is_yes(f"path.{number}.exists"),
        is_readable=readable,
        disk=said.disk(f"path.{number}"),
    )


def _pythons(said: _Said) -> tuple[PythonFacts, ...]:
    found: dict[str, PythonFacts] = {}
    for line in said.all("python"):
        version, _, path = line.partition(" ")
        if path and re.fullmatch(r"\d+\.\d+\.\d+", version):
            found.setdefault(path, PythonFacts(path=path, version=tuple(int(part) for part in version.split("."))))
    return tuple(found.values())


def _gpus(said: _Said) -> tuple[HostGpu, ...]:
    holders: dict[str, list[str]] = {}
    for line in said.all("nvidia.process"):
        parts = [part.strip() for part in line.split(",")]
        if len(parts) >= 4:
            uuid, pid, *program, owner = parts
            user, _, run = owner.partition("|")
            name = ",".join(program).rpartition("/")[2]
            holders.setdefault(uuid, []).append(run or f"{user or 'somebody'} ({pid} {name})")
    gpus: list[HostGpu] = []
    for line in said.all("nvidia.gpu"):
        parts = [part.strip() for part in line.split(",", 5)]
        if len(parts) == 6 and parts[0].isdigit():
            index, uuid, total, used, _, name = parts
            gpus.append(
                HostGpu(
                    index=int(index),
                    name=name,
                    memory_bytes=_mib(total),
                    memory_used_bytes=_mib(used),
                    held_by=tuple(holders.get(uuid, ())),
                )
            )
    return tuple(gpus)


def _mib(text: str) -> int:
    return int(text) << 20 if text.isdigit() else 0


def _other_gpus(said: _Said) -> dict[str, int]:
    names = {"0x1002": "AMD", "0x8086": "Intel"}
    found: dict[str, int] = {}
    for line in said.all("drm"):
        vendor, _, card = line.partition(" ")
        # card0-HDMI-A-1 and the like are plugs of a card.
        if vendor in names and "-" not in card:
            found[names[vendor]] = found.get(names[vendor], 0) + 1
    return found


def _addresses(said: _Said) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for line in said.all("address"):
        matched = re.match(r"\d+:\s+([^\s@]+)\S*\s+inet6?\s+([0-9a-fA-F.:]+)", line)
        if matched and matched[1] != "lo" and not matched[2].lower().startswith(("fe80:", "169.254.")):
            found.append((matched[1], matched[2]))
    found += [("", address) for address in said.one("addresses").split()]
    return tuple(found)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
