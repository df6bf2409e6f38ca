"""Judges one host by what it said of itself: every finding with its remedy. Pure: asks nobody, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from core.contracts.errors import UserError
from core.contracts.hosts import Finding, FindingLevel, HostRecord
from core.fleet.demands import Demands
from core.fleet.host_facts import HostFacts
from core.fleet.self_test_answer import SelfTest
from core.fleet.worker_wheel import OLDEST_PYTHON, worker_version
from core.jobs.devices import devices_for_host, parse_indices

OK, WARNING, ERROR = FindingLevel.OK, FindingLevel.WARNING, FindingLevel.ERROR

_SKEW_S = 2.0
_OLDEST_GLIBC = (2, 17)
_TORCH_GLIBC = (2, 28)
_KNOWN_ARCHITECTURES = ("x86_64", "aarch64", "arm64")
_SMALL_DISK_BYTES = 5 << 30
_RESERVE_BYTES = 256 << 20
_MEMORY_PER_RANK_BYTES = 1 << 30
_OPEN_FILES = 4096
_PROCESSES = 1024
_LOCKED_BYTES = 64 << 20
_SHM_BYTES = 64 << 20
_SHM_PER_GPU_BYTES = 1 << 30
_BUSY_MEMORY_SHARE = 0.05


def finding(level: FindingLevel, topic: str, what: str, remedy: str = "") -> Finding:
    """Return a finding."""
    return Finding(level=level, what=what, remedy=remedy, topic=topic)


def host_findings(
    record: HostRecord, facts: HostFacts, tested: SelfTest | None, demands: Demands | None
) -> tuple[Finding, ...]:
    """Return everything that can be said of a host that answered.

    Args:
        record: The host.
        facts: What it said of itself.
        tested: What its Python environment said; None without one that starts.
        demands: What the run asks; None when no run is planned.
    """
    found: list[Finding] = [*_system(facts), *_folder(facts), *_limits(facts, demands), *_memory(facts, demands)]
    found += [*_disk(facts, demands), *_paths(facts, demands), *_python(record, facts, demands)]
    found += [*_gpus(record, facts, demands), *_torch(facts, tested, demands), *_worker(record, tested)]
    return tuple(found)


def gib(size_bytes: int) -> str:
    """Return bytes for people."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 1 << 30 else f"{size_bytes / 2**20:.0f} MiB"


def _system(facts: HostFacts) -> Iterator[Finding]:
    if not facts.kernel.startswith("Linux"):
        yield finding(ERROR, "system", f"The host runs {facts.kernel}; runs need Linux.", "Choose a Linux host.")
        return
    yield finding(OK, "system", f"{facts.os_name or facts.kernel}, {facts.arch}, {facts.libc}, {facts.cpus} CPUs.")
    if facts.arch not in _KNOWN_ARCHITECTURES:
        what = f"Few packages are built for {facts.arch}."
        yield finding(WARNING, "system", what, "Name an interpreter that has what the run needs.")
    if facts.glibc is None:
        what = f"The host's C library is {facts.libc or 'not glibc'}; torch is not built for it."
        yield finding(WARNING, "system", what, "Use a container: pilothouse hosts install --wrapper.")
    elif facts.glibc < _OLDEST_GLIBC:
        what = f"glibc {facts.glibc[0]}.{facts.glibc[1]} is too old for packages of Python 3.11."
        yield finding(ERROR, "system", what, "Use a container: pilothouse hosts install --wrapper.")
    elif facts.glibc < _TORCH_GLIBC:
        what = f"glibc {facts.glibc[0]}.{facts.glibc[1]} is older than what current builds of torch need (2.28)."
        yield finding(WARNING, "system", what, "Use an older torch, or a container.")
    yield from _clock(facts)


def _clock(facts: HostFacts) -> Iterator[Finding]:
    if facts.clock_skew_s is None:
        yield finding(WARNING, "clock", "The host's clock could not be read.", "Look at the command date there.")
        return
    skew = abs(facts.clock_skew_s)
    if skew - facts.clock_doubt_s > _SKEW_S:
        way = "ahead of" if facts.clock_skew_s > 0 else "behind"
        what = f"The host's clock is {skew:.1f} s {way} this machine's: times of its logs and curves are off."
        yield finding(WARNING, "clock", what, "Switch on time synchronization on both (timedatectl set-ntp true).")
    else:
        yield finding(OK, "clock", f"The clock is right to within {max(skew, facts.clock_doubt_s):.2f} s.")


def _folder(facts: HostFacts) -> Iterator[Finding]:
    if not facts.is_work_dir_writable:
        what = f"The work folder {facts.work_dir} cannot be written to."
        yield finding(ERROR, "folder", what, "Choose another work folder, or give yourself permission there.")
    elif facts.work_disk is not None and facts.work_disk.is_network:
        what = f"The work folder {facts.work_dir} is on a network file system ({facts.work_disk.kind})."
        yield finding(OK, "folder", what)
    else:
        yield finding(OK, "folder", f"The work folder {facts.work_dir} can be written to.")
    if facts.kills_user_processes:
        what = "The host ends all processes of a user when the last connection closes: runs would not survive."
        yield finding(ERROR, "logout", what, f"Run there: loginctl enable-linger {facts.user}")


def _limits(facts: HostFacts, demands: Demands | None) -> Iterator[Finding]:
    files, processes = facts.limits.get("open files"), facts.limits.get("processes")
    locked = facts.limits.get("locked memory")
    is_fine = True
    if files is not None and files < _OPEN_FILES:
        is_fine = False
        what = f"At most {files} files may be open at once; data loaders and many ranks need more."
        yield finding(WARNING, "limits", what, f"Raise it there: ulimit -n {_OPEN_FILES} (prelude), or limits.conf.")
    if processes is not None and processes < _PROCESSES:
        is_fine = False
        what = f"At most {processes} processes and threads are allowed; each rank starts dozens of threads."
        yield finding(WARNING, "limits", what, "Ask the host's administrator to raise nproc in limits.conf.")
    if facts.gpus and locked is not None and locked < _LOCKED_BYTES:
        is_fine = False
        what = f"At most {locked >> 10} KiB of memory may be locked; RDMA and pinned memory need more."
        yield finding(WARNING, "limits", what, "Set memlock to unlimited in limits.conf.")
    if is_fine:
        yield finding(OK, "limits", f"Limits: {files or 'unlimited'} open files, {processes or 'unlimited'} processes.")
    yield from _shared_memory(facts, demands)


def _shared_memory(facts: HostFacts, demands: Demands | None) -> Iterator[Finding]:
    ranks = 1 if demands is None else demands.ranks
    needed = _SHM_PER_GPU_BYTES * min(ranks, len(facts.gpus)) if facts.gpus else _SHM_BYTES
    if facts.shm is None:
        what = "There is no /dev/shm: data loaders with workers and NCCL will fail."
        yield finding(ERROR, "shm", what, "Mount a tmpfs there; in a container, give it one (--shm-size).")
    elif facts.shm.free_bytes < needed:
        what = (
            f"/dev/shm has {gib(facts.shm.free_bytes)} free; data loaders with workers and NCCL may need {gib(needed)}."
        )
        yield finding(WARNING, "shm", what, "Enlarge it (mount -o remount,size=8G /dev/shm; containers: --shm-size).")
    else:
        yield finding(OK, "shm", f"/dev/shm has {gib(facts.shm.free_bytes)} free.")


def _memory(facts: HostFacts, demands: Demands | None) -> Iterator[Finding]:
    needed = _MEMORY_PER_RANK_BYTES * (1 if demands is None else max(demands.ranks, 1))
    what = f"{gib(facts.memory_available_bytes)} of {gib(facts.memory_total_bytes)} memory are available"
    if facts.memory_available_bytes < needed:
        what = f"{what}; loading torch alone takes about {gib(needed)} for all processes."
        yield finding(WARNING, "memory", what, "End other programs there, or start fewer processes.")
    else:
        yield finding(OK, "memory", f"{what}.")


def _disk(facts: HostFacts, demands: Demands | None) -> Iterator[Finding]:
    disk = facts.work_disk
    if disk is None:
        what = f"How full the disk of {facts.work_dir} is could not be told."
        yield finding(WARNING, "disk", what, "Look at it with df.")
        return
    there = f"{gib(disk.free_bytes)} are free on {disk.mount}"
    known = None if demands is None else demands.checkpoint_bytes
    copied = 0 if demands is None else demands.copied_bytes
    needed = copied + (known or 0) + _RESERVE_BYTES
    if disk.free_bytes < needed:
        parts = [f"checkpoints {gib(known)}"] if known else []
        parts += [f"copies {gib(copied)}"] if copied else []
        what = f"{there}; the run needs about {gib(needed)} ({', '.join(parts) or 'logs'})."
        yield finding(ERROR, "disk", what, "Free some space, keep fewer checkpoints, or choose another work folder.")
    elif known is None and disk.free_bytes < _SMALL_DISK_BYTES:
        yield finding(WARNING, "disk", f"Only {there}.", "Free some space, or choose another work folder.")
    else:
        room = f", checkpoints need about {gib(known)}" if known else ""
        yield finding(OK, "disk", f"{there}{room}.")


def _paths(facts: HostFacts, demands: Demands | None) -> Iterator[Finding]:
    names = {} if demands is None else {path: name for name, path in demands.paths}
    for path in facts.paths:
        name = names.get(path.path, "path")
        if path.is_readable:
            shared = (
                "on a network file system"
                if path.disk is not None and path.disk.is_network
                else "on the host's own disk"
            )
            yield finding(OK, "paths", f"{name}: {path.path} can be read, {shared}.")
            continue
        state = "may not be read" if path.exists else "is not there"
        remedy = (
            "Give yourself permission to read it there."
            if path.exists
            else "Put it on a file system that the host shares, or name it under 'Copied data' (launch.copy_data)."
        )
        yield finding(ERROR, "paths", f"{name}: {path.path} {state}.", remedy)


def _python(record: HostRecord, facts: HostFacts, demands: Demands | None) -> Iterator[Finding]:
    if record.runtime.kind != "none":
        return
    level = ERROR if demands is not None else WARNING
    base = facts.newest_python(OLDEST_PYTHON)
    there = (
        f"Python {'.'.join(map(str, base.version))} is there to build on"
        if base is not None
        else "it has no Python 3.11 or newer"
    )
    remedy = f"Install one: pilothouse hosts install {record.name} --managed"
    if base is None and not facts.index_answers:
        remedy = f"Install a Python on the host, then: pilothouse hosts install {record.name} --managed"
    yield finding(level, "python", f"The host has no Python environment for runs yet; {there}.", remedy)
    if not facts.index_answers:
        what = f"The host cannot reach its package index ({facts.index}); packages will be sent from here."
        yield finding(OK, "index", what)


def _gpus(record: HostRecord, facts: HostFacts, demands: Demands | None) -> Iterator[Finding]:
    if facts.nvidia_problem:
        what = f"An NVIDIA driver is there, but finds no GPU: {facts.nvidia_problem[:200]}"
        yield finding(ERROR, "gpus", what, "Look at nvidia-smi there; after an update of the driver, restart the host.")
    others = ", ".join(f"{count} {vendor}" for vendor, count in facts.other_gpus.items())
    if not facts.gpus:
        yield finding(OK, "gpus", f"No NVIDIA GPU{f'; {others} graphics' if others else ''}.")
    else:
        version = f", CUDA up to {facts.driver_cuda[0]}.{facts.driver_cuda[1]}" if facts.driver_cuda else ""
        names = ", ".join(sorted({gpu.name for gpu in facts.gpus}))
        yield finding(OK, "gpus", f"{len(facts.gpus)} GPUs ({names}), driver {facts.driver}{version}.")
    if demands is not None:
        yield from _devices(devices_for_host(demands.devices, record.name), facts, demands)


def _holders(facts: HostFacts) -> dict[int, str]:
    """Return who holds each GPU that is not free."""
    held: dict[int, str] = {}
    for gpu in facts.gpus:
        if gpu.held_by:
            held[gpu.index] = ", ".join(gpu.held_by)
        elif gpu.memory_used_bytes > _BUSY_MEMORY_SHARE * max(gpu.memory_bytes, 1):
            held[gpu.index] = f"somebody whose processes are not shown ({gib(gpu.memory_used_bytes)})"
    return held


def _devices(asked: str, facts: HostFacts, demands: Demands) -> Iterator[Finding]:
    if asked == "cpu" or (asked == "auto" and not facts.gpus):
        return
    held = _holders(facts)
    there = [gpu.index for gpu in facts.gpus]
    try:
        wanted = there if asked == "auto" else list(parse_indices(asked))
    except UserError as error:
        yield finding(ERROR, "devices", error.message, error.hint)
        return
    missing = [index for index in wanted if index not in there]
    if missing:
        what = f"The host has no GPU {', '.join(map(str, missing))}."
        remedy = f"It has {', '.join(map(str, there))}." if there else "Choose the devices cpu, or another host."
        yield finding(ERROR, "devices", what, remedy)
        return
    free = [index for index in wanted if index not in held]
    needed = demands.ranks if asked == "auto" else len(wanted)
    if len(free) >= needed:
        yield finding(OK, "devices", f"GPUs free for the run: {', '.join(map(str, free))}.")
        return
    busy = "; ".join(f"GPU {index} is held by {held[index]}" for index in wanted if index in held)
    what = f"{len(free)} of the {needed} GPUs asked for are free. {busy}".strip().rstrip(".") + "."
    if demands.waits and needed <= len(wanted):
        yield finding(OK, "devices", f"{what} The run will wait.")
    else:
        level = WARNING if needed <= len(wanted) else ERROR
        remedy = "Choose others, wait for them (launch.queue), or start fewer processes."
        yield finding(level, "devices", what, remedy)


def _torch(facts: HostFacts, tested: SelfTest | None, demands: Demands | None) -> Iterator[Finding]:
    if tested is None:
        return
    if tested.torch is None:
        if demands is not None and demands.is_training:
            what = "torch is not installed in the host's Python environment."
            yield finding(WARNING, "torch", what, "Add it: pilothouse hosts install NAME --managed --extra train")
        return
    torch = tested.torch
    built = tuple(int(part) for part in torch.cuda.split(".")[:2] if part.isdigit())
    if facts.gpus and not built:
        what = f"torch {torch.version} there is built for CPU: the GPUs would idle."
        yield finding(WARNING, "torch", what, "Renew the environment with a build for its GPUs (--torch-backend auto).")
    elif facts.driver_cuda is not None and built and built[0] > facts.driver_cuda[0]:
        driver = f"driver {facts.driver} supports CUDA up to {facts.driver_cuda[0]}.{facts.driver_cuda[1]}"
        what = f"torch {torch.version} is built for CUDA {torch.cuda}; the {driver}."
        remedy = f"Renew the driver, or install a build such as --torch-backend cu{facts.driver_cuda[0]}{facts.driver_cuda[1]}."
        yield finding(ERROR, "torch", what, remedy)
    else:
        yield finding(OK, "torch", f"torch {torch.version}, {f'CUDA {torch.cuda}' if built else 'CPU'}.")


def _worker(record: HostRecord, tested: SelfTest | None) -> Iterator[Finding]:
    if tested is None:
        return
    if tested.worker_version != worker_version():
        what = f"The worker package there is {tested.worker_version}; this Pilothouse is {worker_version()}."
        yield finding(WARNING, "worker", what, f"Renew it: pilothouse hosts install {record.name}")
    else:
        yield finding(OK, "worker", f"Python {tested.python} with the worker package of this Pilothouse.")
    for name, reason in tested.missing.items():
        what = f"{name} cannot be imported: {reason}."
        yield finding(ERROR, "packages", what, f"Repair it: pilothouse hosts install {record.name}")
    for kind in tested.broken_kinds:
        yield finding(WARNING, "packages", f"A kind of run cannot be loaded there: {kind}.")
