"""What a host is and what it reads now, as frozen records; the protocol of whoever takes the readings.

A reading is ``float | None``: None where the machine does not tell, never an exception. Units are in the names;
titles and groups of the sample's keys stand in ``core.contracts.units``. ``core.hardware`` fills these records.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from core.contracts.notices import Severity

Sample = dict[str, float | None]


class Sampler(Protocol):
    """Takes one flat reading of a host: ``{"cpu.percent": 12.5, "gpu.0.memory_used_bytes": None, ...}``."""

    def sample(self, root_pids: tuple[int, ...] = ()) -> dict[str, float | None]:
        """Return the reading now; rates are since the last call. ``root_pids`` are the heads of the run's process trees."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class HardwareProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps us from reading or using a part of the machine.

    Attributes:
        part: What it concerns, such as ``nvidia`` or ``nvidia gpu 1``.
        severity: ``info`` where nothing is wrong with the machine (no such hardware), else ``warning`` or ``error``.
        message: One sentence: what is the matter.
        hint: One sentence: the remedy; may be empty.
    """

    part: str
    severity: Severity
    message: str
    hint: str = ""


class CpuInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The processors, and how much of them this process may use.

    Attributes:
        model: Name as the maker writes it.
        architecture: ``x86_64``, ``aarch64``, ...
        sockets: Processor packages; None where the system does not tell (so in the next two).
        physical_cores: Cores without counting hardware threads.
        numa_nodes: Memory nodes.
        logical_cores: Hardware threads of the machine.
        affinity_cores: Hardware threads this process may be scheduled on.
        quota_cores: Cores' worth of time that its control group allows; None without a limit.
        max_frequency_hz: Highest clock the system announces.
        features: Vector extensions that matter to inference: ``avx2``, ``avx512_vnni``, ``amx_int8``, ``dotprod``, ...
    """

    model: str
    architecture: str
    logical_cores: int
    affinity_cores: int
    sockets: int | None = None
    physical_cores: int | None = None
    numa_nodes: int | None = None
    quota_cores: float | None = None
    max_frequency_hz: float | None = None
    features: tuple[str, ...] = ()

    @property
    def usable_cores(self) -> float:
        """Cores' worth of time this process can have: the tighter of affinity and quota."""
        return (
            float(self.affinity_cores)
            if self.quota_cores is None
            else min(float(self.affinity_cores), self.quota_cores)
        )


class MemoryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory and swap in bytes; ``limit_bytes`` is the control group's limit, None without one."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    limit_bytes: int | None = None

    @property
    def usable_bytes(self) -> int:
        """The most this process can ever hold: the tighter of the machine's memory and the limit."""
        return self.total_bytes if self.limit_bytes is None else min(self.total_bytes, self.limit_bytes)


class DiskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One mounted file system, in bytes."""

    mount: str
    device: str
    filesystem: str
    total_bytes: int
    free_bytes: int


class GpuInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. What a driver does not tell is None (an empty text).

    Attributes:
        index: Its number in telemetry names (``gpu.<index>....``) over all vendors.
        vendor: Name of the vendor's file, such as ``nvidia``.
        vendor_index: Its number in the order of its own driver's tools (``nvidia-smi``). CUDA may count otherwise: choose
            devices by ``uuid`` in ``CUDA_VISIBLE_DEVICES``.
        uuid: The driver's name for it that survives a restart.
        pci_bus_id: ``domain:bus:device.function``.
        driver: Version of the kernel driver.
        runtime: Highest version of the compute runtime that the driver serves, such as ``CUDA 13.0``.
        compute_capability: ``9.0`` for NVIDIA, the architecture's name (``gfx942``) for AMD.
        mig_enabled: True where the GPU is cut into MIG instances.
        problem: Why it cannot be read, as a sentence; empty when it can.
    """

    index: int
    vendor: str
    vendor_index: int
    name: str
    uuid: str = ""
    pci_bus_id: str = ""
    driver: str = ""
    runtime: str = ""
    memory_total_bytes: int | None = None
    compute_capability: str = ""
    power_limit_w: float | None = None
    max_sm_clock_hz: float | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    max_pcie_generation: int | None = None
    max_pcie_width: int | None = None
    nvlink_links: int | None = None
    ecc_enabled: bool | None = None
    mig_enabled: bool | None = None
    problem: str = ""


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds a GPU.

    Attributes:
        gpu_index: ``GpuInfo.index``.
        pid: As the driver sees it: inside a container, an old driver gives the host's number.
        use: ``compute`` or ``graphics``.
        memory_bytes: What it holds; None where the driver does not tell.
        name: Program; empty where the process cannot be seen for sure (so is ``user``).
        user: Who runs it.
    """

    gpu_index: int
    pid: int
    use: str
    memory_bytes: int | None = None
    name: str = ""
    user: str = ""


class HardwareReport(msgspec.Struct, frozen=True, kw_only=True):
    """A host: what it is made of, what of it may be used, and what is wrong with it.

    Attributes:
        system: Operating system with version, such as ``Ubuntu 24.04``.
        kernel: Kernel name and release.
        container: Name of the container technology this process runs in; empty outside of one.
        gpu_processes: Who holds the GPUs now.
        problems: All that keeps us from reading or using a part.
    """

    host: str
    system: str
    kernel: str
    cpu: CpuInfo
    memory: MemoryInfo
    container: str = ""
    disks: tuple[DiskInfo, ...] = ()
    gpus: tuple[GpuInfo, ...] = ()
    gpu_processes: tuple[GpuProcess, ...] = ()
    problems: tuple[HardwareProblem, ...] = ()


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """The two ceilings of the roofline model, measured on this machine's processors.

    Source of the model: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009; the bandwidth kernel is STREAM's
    triad (McCalpin), counted as three arrays moved.

    Attributes:
        peak_fp32_flop_per_s: Best rate of fp32 operations seen, a multiply-add counting as two.
        bandwidth_bytes_per_s: Best rate of main memory seen.
        threads: Threads that worked at once.
        array_bytes: Size of each of the three arrays; must be well above the last cache to measure memory.
        cache_bytes: Size of the last cache; None where the system does not tell.
        engine: ``native`` (our C++ probe) or ``numpy``.
        note: Why the native probe was not used, or what limits the figures' meaning; may be empty.
    """

    peak_fp32_flop_per_s: float
    bandwidth_bytes_per_s: float
    threads: int
    array_bytes: int
    cache_bytes: int | None
    engine: str
    note: str = ""

    @property
    def ridge_flop_per_byte(self) -> float:
        """Arithmetic intensity at which the two ceilings meet: below it, memory is what limits."""
        return self.peak_fp32_flop_per_s / self.bandwidth_bytes_per_s
