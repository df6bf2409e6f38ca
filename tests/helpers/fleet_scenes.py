"""Hosts as the window may meet them, for screenshots: one to look at, a few in every state, and far too many."""

from __future__ import annotations

import math
import time

from app.__main__ import Window
from core.contracts.hosts import (
    CheckReport,
    Finding,
    FindingLevel,
    HostRecord,
    HostStatus,
    LinkState,
    QueueEntry,
    RuntimeRecord,
)
from core.contracts.notices import Severity
from core.contracts.telemetry import (
    CpuInfo,
    DiskInfo,
    GpuInfo,
    GpuProcess,
    HardwareProblem,
    HardwareReport,
    MemoryInfo,
)

GIB = 1 << 30
MANY = 64


def records(count: int) -> tuple[HostRecord, ...]:
    """Return records of hosts, some of them set up."""
    ready = RuntimeRecord(
        kind="managed",
        python="/home/ann/.pilothouse/runtimes/default/bin/python",
        torch_backend="cu128",
        worker_version="0.2.0+5f3a91",
        checked=time.time() - 7200,
    )
    own = RuntimeRecord(kind="interpreter", python="/opt/conda/envs/train/bin/python", prelude=("module load cuda",))
    kinds = (ready, own, RuntimeRecord())
    return tuple(
        HostRecord(
            name=f"lab-{number}" if number < MANY - 1 else "a-host-with-quite-a-long-name.cluster.example.org",
            address=f"10.0.{number // 16}.{number % 16 + 2}",
            user="ann",
            port=22 if number % 5 else 2222,
            jump=("gate.example.org",) if number % 7 == 3 else (),
            runtime=kinds[number % 3],
        )
        for number in range(count)
    )


def status_of(record: HostRecord, number: int, ts: float) -> HostStatus:
    """Return how a host stands at a moment; every tenth does not answer, every seventeenth refuses."""
    if number % 17 == 6:
        return HostStatus(
            name=record.name,
            state=LinkState.REFUSED,
            since=ts - 60,
            message="The key of this host has changed since it was trusted.",
            hint="Ask its administrator; when the change was meant, remove the old line from known_hosts.",
        )
    if number % 10 == 4:
        return HostStatus(
            name=record.name,
            state=LinkState.UNREACHABLE,
            since=ts - 1800,
            message=f"{record.name} does not answer.",
            hint="Runs there go on; their pages are brought up to date once it answers.",
            next_try=ts + 42,
            readings_ts=ts - 1800,
        )
    if number % 13 == 8:
        return HostStatus(name=record.name, state=LinkState.CONNECTING, since=ts)
    busy = 50 + 45 * math.sin(number * 1.7 + ts / 25)
    readings: dict[str, float | None] = {"cpu.percent": busy, "memory.total_bytes": 512.0 * GIB}
    readings["memory.used_bytes"] = (120 + busy) * GIB
    readings |= {f"cpu.{core}.percent": max(min(busy + 20 * math.sin(core + ts / 9), 100), 0) for core in range(64)}
    for gpu in range(0 if number % 4 == 1 else 8):
        load = max(min(97 * math.sin(gpu + number) ** 2 + 3 * math.sin(ts + gpu), 100), 0)
        readings |= {
            f"gpu.{gpu}.utilization_percent": load,
            f"gpu.{gpu}.memory_used_bytes": load / 100 * 76 * GIB,
            f"gpu.{gpu}.memory_total_bytes": 80.0 * GIB,
            f"gpu.{gpu}.power_w": 90 + 6 * load,
            f"gpu.{gpu}.temperature_c": 35 + load / 3,
        }
    return HostStatus(
        name=record.name, state=LinkState.ONLINE, since=ts - 600, latency_s=0.012, readings=readings, readings_ts=ts
    )


def hardware() -> HardwareReport:
    """Return what a large machine is made of."""
    gpus = tuple(
        GpuInfo(
            index=n,
            vendor="nvidia",
            vendor_index=n,
            name="NVIDIA H100 80GB HBM3",
            driver="570.86",
            runtime="CUDA 12.8",
            memory_total_bytes=80 * GIB,
        )
        for n in range(8)
    )
    return HardwareReport(
        host="lab-0",
        system="Ubuntu 24.04",
        kernel="Linux 6.8.0",
        cpu=CpuInfo(model="AMD EPYC 9554", architecture="x86_64", logical_cores=64, affinity_cores=64),
        memory=MemoryInfo(total_bytes=512 * GIB, available_bytes=360 * GIB, swap_total_bytes=0),
        disks=(DiskInfo(mount="/", device="nvme0n1", filesystem="ext4", total_bytes=3600 * GIB, free_bytes=900 * GIB),),
        gpus=gpus,
        gpu_processes=(
            GpuProcess(gpu_index=0, pid=88, use="compute", memory_bytes=9 * GIB, name="python", user="ben"),
        ),
        problems=(
            HardwareProblem(
                part="gpu 3",
                severity=Severity.WARNING,
                message="GPU 3 is held back by its temperature.",
                hint="Look after the machine's fans.",
            ),
        ),
    )


def report(name: str) -> CheckReport:
    """Return a check with findings of every level."""

    def say(level: FindingLevel, topic: str, what: str, remedy: str = "") -> Finding:
        return Finding(level=level, topic=topic, what=what, remedy=remedy)

    return CheckReport(
        host=name,
        ok=False,
        findings=(
            say(FindingLevel.OK, "reachable", "It answers in 12 ms."),
            say(
                FindingLevel.ERROR,
                "disk",
                "3.1 GiB are free in ~/.pilothouse; two checkpoints of this run need about 9 GiB.",
                "Free space there, or choose another work folder for this host.",
            ),
            say(
                FindingLevel.WARNING,
                "clock",
                "Its clock is 41 s ahead of this computer's.",
                "Let chrony or systemd-timesyncd set it.",
            ),
            say(
                FindingLevel.WARNING,
                "devices",
                "GPU 0 is held by ben (pid 88 python) with 9.0 GiB.",
                "Choose other devices, or let the run wait for free ones.",
            ),
            *(
                say(FindingLevel.OK, topic, f"The {topic} is as needed.")
                for topic in ("system", "python", "driver", "memory", "ulimit", "shm", "port")
            ),
        ),
    )


def queue() -> tuple[QueueEntry, ...]:
    """Return a queue with two runs that hold devices and three that wait."""
    now = time.time()
    return tuple(
        QueueEntry(
            run_id=f"20261124-10{n:02}00-digits-{n}f9a1c",
            name=f"digits, learning rate {n + 1}e-3",
            position=max(n - 1, 0),
            asked=4,
            devices=tuple(range(4 * n, 4 * n + 4)) if n < 2 else (),
            since=now - 900 + 100 * n,
        )
        for n in range(5)
    )


def show(window: Window, count: int) -> None:
    """Give a window hosts in many states, with ten minutes of readings, without connecting anywhere."""
    fleet, hosts = window.fleet, records(count)
    fleet._watched = {record.name for record in hosts}
    fleet._is_listening = True
    fleet.read_queue = lambda name: None  # type: ignore[method-assign]
    for record in hosts:
        window.services.workspace.fleet.add(record)
    now = time.time()
    for ago in range(300, 0, -5):
        for number, record in enumerate(hosts[:3]):
            fleet._on_status(status_of(record, number, now - ago))
    fleet.reload()
    for number, record in enumerate(hosts):
        fleet._on_status(status_of(record, number, now))
    for record in hosts[:1]:
        book = fleet.book(record.name)
        book.hardware, book.report, book.checked = hardware(), report(record.name), now - 300
        book.queue = queue()
