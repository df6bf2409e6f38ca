"""Processor cost of one telemetry sample of a host and a run's process tree, against psutil used the plain way.

Prints one JSON line. All ways take turns in the same process, a quarter of a second apart; the figures are medians of
processor time. GPUs are left out on both sides. Run: ``python tests/bench/bench_telemetry.py [processes] [rounds]``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core.hardware.sampler import HostSampler

INTERVAL_S = 0.25
ROOT = """
import subprocess, sys
children = [subprocess.Popen(["sleep", "600"]) for _ in range(int(sys.argv[1]) - 1)]
print("up", flush=True)
sys.stdin.read()
for child in children:
    child.kill()
    child.wait()
"""


def host_by_psutil() -> None:
    """Read the host as most monitors do."""
    psutil.cpu_percent(percpu=True)
    psutil.virtual_memory()
    psutil.swap_memory()
    psutil.disk_io_counters()
    psutil.net_io_counters()


def tree_by_children(root: int) -> int:
    """Read the tree as psutil's documentation shows; returns its number of processes."""
    process = psutil.Process(root)
    tree = [process, *process.children(recursive=True)]
    for member in tree:
        with member.oneshot():
            member.cpu_times()
            member.memory_info()
            member.num_threads()
            member.io_counters()
    return len(tree)


def tree_by_scan(root: int) -> int:
    """Read every process of the machine, as simple monitors do, and keep those below the root."""
    parents = {
        process.pid: process.info["ppid"]
        for process in psutil.process_iter(["ppid", "cpu_times", "memory_info", "num_threads"])
    }
    return sum(root in (pid, parent) for pid, parent in parents.items())


def cost_us(action: Callable[[], object]) -> float:
    """Return the processor time of one call in microseconds."""
    begin = time.process_time()
    action()
    return (time.process_time() - begin) * 1e6


def measure(processes: int, rounds: int) -> dict[str, object]:
    """Return the figures for a tree of this many processes."""
    command = [sys.executable, "-c", ROOT, str(processes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        root.stdout.readline()
        sampler = HostSampler(readers=())
        ways: dict[str, Callable[[], object]] = {
            "pilothouse": lambda: sampler.sample((root.pid,)),
            "psutil_children": lambda: (host_by_psutil(), tree_by_children(root.pid)),
            "psutil_process_iter": lambda: (host_by_psutil(), tree_by_scan(root.pid)),
        }
        assert sampler.sample((root.pid,))["run.processes"] == tree_by_children(root.pid) == tree_by_scan(root.pid)
        costs: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds):
            # Each way gets its own pause, so that all run as cold as at 1 Hz; the order changes with every round.
            for name in sorted(ways, key=lambda name, turn=turn: (list(ways).index(name) + turn) % len(ways)):
                time.sleep(INTERVAL_S)
                costs[name].append(cost_us(ways[name]))
        sampler.close()
        root.communicate()
    medians = {name: statistics.median(values) for name, values in costs.items()}
    return {
        "bench": "telemetry",
        "tree_processes": processes,
        "machine_processes": len(psutil.pids()),
        "rounds": rounds,
        "cpu_us_per_sample": {name: round(value, 1) for name, value in medians.items()},
        "percent_of_a_core_at_1_hz": {name: round(value / 1e4, 4) for name, value in medians.items()},
        "times_cheaper_than": {
            name: round(value / medians["pilothouse"], 1) for name, value in medians.items() if name != "pilothouse"
        },
    }


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    print(json.dumps(measure(*(arguments + [9, 40][len(arguments) :]))))
