"""How late and how dear following a remote run is, over a real sshd on this machine.

Late: from the time in an event to the moment its bytes are in the mirror here (p50, p95), while the run writes ten steps a
second. Dear: CPU time of this process and of the host's agent per second of following, of one core. Beside it the peer:
``ssh host tail -n +1 -F`` of the same log, its CPU time and lateness read the same way.

Ready: from the wish to watch a host (its environment is there, nothing is connected) to the first telemetry sample, in
turns with a bare ``ssh host true``; medians.

``python -m tests.bench.bench_follow``; prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from core.contracts.events import MetricEvent
from core.fleet.mirror import Mirror
from core.jobs.processes import marked_processes
from core.runlog.layout import RunLayout
from core.runlog.tail import parse_line
from tests.helpers.remote_home import RemoteHome, opened_remote_home
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for

WATCH_S = 20.0
READY_TURNS = 9
SPEC = 'kind = "test.toy"\nname = "toy"\nendless = true\ncheckpoint_every = 1000000\nstep_s = 0.1\n'


class Lateness:
    """Reads new lines and notes how old each metric is at that moment."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._rest = b""

    def take(self, data: bytes) -> None:
        now = time.time()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = parse_line(line) if line else None
            if isinstance(event, MetricEvent):
                self.seconds.append(now - event.ts)

    def figures(self) -> dict[str, float]:
        """Milliseconds."""
        cuts = statistics.quantiles(self.seconds, n=20)
        return {"p50_ms": round(statistics.median(self.seconds) * 1e3, 1), "p95_ms": round(cuts[18] * 1e3, 1)}


def _cpu_s(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(one.user + one.system for one in times)


def _ours(scene: RemoteHome, log: Path) -> dict[str, float]:
    lateness = Lateness()
    agent = scene.pool.agent("box").hello.pid
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        before, there, began = _cpu_s([os.getpid()]), _cpu_s([agent]), time.monotonic()
        quiet = time.thread_time()
        while time.monotonic() - began < WATCH_S:
            lateness.take(file.read())
            time.sleep(0.005)
        looking = time.thread_time() - quiet
        cost = _cpu_s([os.getpid()]) - before - looking
        there = _cpu_s([agent]) - there
    percent = {"core_percent_here": cost, "core_percent_there": there}
    return {**lateness.figures(), **{name: round(100 * spent / WATCH_S, 2) for name, spent in percent.items()}}


def _ssh(scene: RemoteHome, *command: str) -> list[str]:
    server = scene.server
    options = ["-F", "none", "-o", f"UserKnownHostsFile={server.known_hosts}", "-i", str(server.identity)]
    words = [shlex.quote(word) for word in command]
    return ["ssh", *options, "-p", str(server.port), f"{server.user}@127.0.0.1", *words]


def _ready(scene: RemoteHome) -> dict[str, float]:
    bare: list[float] = []
    ours: list[float] = []
    trip: list[float] = []
    for _ in range(READY_TURNS):
        began = time.perf_counter()
        subprocess.run(_ssh(scene, "true"), check=True)
        bare.append(time.perf_counter() - began)
        pool = scene.new_pool()
        has_readings = threading.Event()
        pool.on_status(lambda status, seen=has_readings: seen.set() if status.readings else None)
        began = time.perf_counter()
        pool.watch("box")
        has_readings.wait(60)
        ours.append(time.perf_counter() - began)
        trip.append(pool.agent("box").ping())
        pool.close()
    first, ssh = statistics.median(ours), statistics.median(bare)
    milliseconds = {"first_sample_ms": first, "ssh_true_ms": ssh, "round_trip_ms": statistics.median(trip)}
    return {**{name: round(value * 1e3, 1) for name, value in milliseconds.items()}, "ratio": round(first / ssh, 2)}


def _peer(scene: RemoteHome, log: Path) -> dict[str, float]:
    lateness = Lateness()
    with subprocess.Popen(_ssh(scene, "tail", "-n", "0", "-F", str(log)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout.fileno(), lateness), daemon=True)
        reader.start()
        wait_for(lambda: lateness.seconds, "the first line by tail")
        found = psutil.process_iter(["cmdline"])
        tails = [
            one.pid for one in found if (one.info["cmdline"] or [])[:1] == ["tail"] and str(log) in one.info["cmdline"]
        ]
        pids = [process.pid, *tails]
        before = _cpu_s(pids)
        time.sleep(WATCH_S)
        cost = _cpu_s(pids) - before
        process.terminate()
        reader.join()
    return {**lateness.figures(), "core_percent": round(100 * cost / WATCH_S, 2)}


def _read(descriptor: int, lateness: Lateness) -> None:
    while data := os.read(descriptor, 1 << 16):
        lateness.take(data)


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        install_toy(Path(folder) / "plugin", monkeypatch)
        with opened_remote_home(Path(folder)) as scene:
            ready = _ready(scene)
            mirror = Mirror(scene.home, scene.pool)
            run_id = scene.prepared(SPEC)
            scene.start(run_id)
            mirror.follow(scene.home.run_dir(run_id))
            here = RunLayout(scene.home.run_dir(run_id)).events("worker", "box")
            wait_for(here.exists, "the first events")
            ours = _ours(scene, here)
            mirror.close()
            peer = _peer(scene, RunLayout(scene.there.run_dir(run_id)).events("worker", "box"))
            for pid in marked_processes(run_id):
                os.kill(pid, signal.SIGKILL)
    print(json.dumps({"bench": "follow", "steps_per_s": 10, "ours": ours, "ssh_tail": peer, "ready": ready}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
