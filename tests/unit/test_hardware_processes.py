"""Both readers of process trees against real processes, with psutil as the witness."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import psutil
import pytest

from core.hardware.processes import LinuxProcessTree, PortableProcessTree, ProcessTree, process_tree
from tests.helpers.waiting import wait_for

# On each line it reads: "burn" uses up 0.15 s of processor time, "child" starts a sleeper, "write" syncs 1 MiB.
WORKER = """
import os, subprocess, sys, time
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
children, killed = [], []
for line in sys.stdin:
    word = line.strip()
    if word == "burn":
        until = time.process_time() + 0.15
        while time.process_time() < until:
            sum(range(1000))
    elif word == "child":
        children.append(subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE))
        children[-1].stdout.readline()
    elif word == "kill":
        killed.append(children.pop())
        killed[-1].kill()
    elif word == "reap":
        killed.pop().wait()
    elif word == "write":
        with open(sys.argv[1], "wb") as file:
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
    print("done", flush=True)
for child in children + killed:
    child.kill()
    child.wait()
"""

TREES = [PortableProcessTree]
if sys.platform == "linux":
    TREES.append(LinuxProcessTree)  # type: ignore[arg-type]


class Worker:
    def __init__(self, file: str) -> None:
        command = [sys.executable, "-c", WORKER, file]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def do(self, word: str) -> None:
        stdin, stdout = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        stdin.write(f"{word}\n")
        stdin.flush()
        assert stdout.readline() == "done\n"

    def close(self) -> None:
        cast("IO[str]", self.process.stdin).close()
        self.process.wait(20)
        cast("IO[str]", self.process.stdout).close()


@pytest.fixture
def worker(tmp_path: object) -> Iterator[Worker]:
    started = Worker(f"{tmp_path}/file")
    yield started
    started.close()


@pytest.fixture(params=TREES, ids=lambda tree: tree.__name__)
def tree(request: pytest.FixtureRequest) -> Iterator[ProcessTree]:
    made = cast("Callable[[], ProcessTree]", request.param)()
    yield made
    made.close()


def test_processor_time_and_memory_agree_with_psutil(tree: ProcessTree, worker: Worker) -> None:
    worker.do("child")
    witness = psutil.Process(worker.pid)
    first = tree.read((worker.pid,), 10.0)
    before = witness.cpu_times()
    assert first["run.cpu_percent"] is None
    assert first["run.processes"] == 2.0
    worker.do("burn")
    second = tree.read((worker.pid,), 12.0)
    after = witness.cpu_times()
    burnt_s = after.user + after.system - before.user - before.system
    assert burnt_s >= 0.14
    # Three clock ticks of slack: each process is counted in whole ticks.
    assert second["run.cpu_percent"] == pytest.approx(burnt_s / 2.0 * 100.0, abs=100.0 * 0.03 / 2.0)
    rss = sum(psutil.Process(pid).memory_info().rss for pid in tree.pids)
    assert second["run.rss_bytes"] == pytest.approx(rss, rel=0.05)
    assert second["run.threads"] == sum(psutil.Process(pid).num_threads() for pid in tree.pids)


def test_new_children_are_found_and_dead_ones_leave(tree: ProcessTree, worker: Worker) -> None:
    assert tree.read((worker.pid,), 10.0)["run.processes"] == 1.0
    worker.do("child")
    assert tree.read((worker.pid,), 10.0 + 1e-6)["run.processes"] == 1.0, "the search for children is rationed"
    assert tree.read((worker.pid,), 1000.0)["run.processes"] == 2.0
    child = next(pid for pid in tree.pids if pid != worker.pid)
    worker.do("kill")
    wait_for(lambda: psutil.Process(child).status() == psutil.STATUS_ZOMBIE, "the killed child to become a zombie")
    assert tree.read((worker.pid,), 2000.0)["run.processes"] == 1.0, "a zombie is no process of the run"


def test_a_root_that_is_gone_leaves_nothing(tree: ProcessTree, worker: Worker) -> None:
    tree.read((worker.pid,), 10.0)
    worker.close()
    gone = tree.read((worker.pid,), 11.0)
    assert (gone["run.processes"], gone["run.rss_bytes"], gone["run.threads"]) == (0.0, 0.0, 0.0)
    assert tree.pids == frozenset()


def test_other_roots_begin_anew(tree: ProcessTree, worker: Worker) -> None:
    tree.read((worker.pid,), 10.0)
    other = tree.read((os.getpid(),), 11.0)
    assert other["run.cpu_percent"] is None
    assert os.getpid() in tree.pids


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count disk traffic differently or not at all")
def test_disk_traffic_is_the_kernels(tree: ProcessTree, worker: Worker) -> None:
    tree.read((worker.pid,), 10.0)
    before = psutil.Process(worker.pid).io_counters().write_bytes
    worker.do("write")
    grown = psutil.Process(worker.pid).io_counters().write_bytes - before
    assert tree.read((worker.pid,), 12.0)["run.write_bytes_per_s"] == grown / 2.0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_files_are_closed_with_their_processes(worker: Worker) -> None:
    before = open_files()
    tree = LinuxProcessTree()
    for round_number in range(5):
        worker.do("child")
        tree.read((worker.pid,), 100.0 * round_number)
        worker.do("kill")
        worker.do("reap")
        tree.read((worker.pid,), 100.0 * round_number + 50.0)
    assert open_files() <= before + 2
    tree.close()
    assert open_files() == before


@pytest.mark.skipif(sys.platform != "linux", reason="the cheap reader is Linux's")
def test_linux_gets_the_cheap_reader() -> None:
    assert isinstance(process_tree(), LinuxProcessTree)
