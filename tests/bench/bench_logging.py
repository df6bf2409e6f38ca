"""What a step with ten scalars costs the worker: our event line against TensorBoard's writer, and what kill -9 loses.

Prints one JSON line. Each writer runs in a fresh process, interleaved; CPU time of the whole process is counted
(``time.process_time``), so that a writer thread is not hidden. Then each is killed with SIGKILL while it logs at full
speed, and the steps that read back are compared with those it had acknowledged.

    python -m tests.bench.bench_logging [STEPS] [ROUNDS]
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_VALUES = "values = {f'metric/{i}': 0.123456789 * i for i in range(10)}\n"
_WRITERS = {
    "pilothouse": "from core.runlog.emit import EventWriter\n"
    "writer = EventWriter(sys.argv[1] + '/events.local.0.jsonl')\n"
    "def log(step): writer.metric(step, values)\n"
    "def close(): writer.sync(); writer.close()\n",
    "tensorboard": "from torch.utils.tensorboard import SummaryWriter\n"
    "writer = SummaryWriter(sys.argv[1])\n"
    "def log(step):\n    for key, value in values.items(): writer.add_scalar(key, value, step)\n"
    "def close(): writer.flush(); writer.close()\n",
    "tensorboard, one event a step": "from tensorboard.compat.proto.event_pb2 import Event\n"
    "from tensorboard.compat.proto.summary_pb2 import Summary\n"
    "from tensorboard.summary.writer.event_file_writer import EventFileWriter\n"
    "writer = EventFileWriter(sys.argv[1])\n"
    "def log(step):\n"
    "    scalars = [Summary.Value(tag=k, simple_value=v) for k, v in values.items()]\n"
    "    writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))\n"
    "def close(): writer.flush(); writer.close()\n",
}
_COST = "start = time.process_time()\nfor step in range(int(sys.argv[2])): log(step)\nclose()\nprint(time.process_time() - start)\n"
_ENDLESS = "step = 0\nwhile True:\n    log(step); os.write(1, b'%d\\n' % step); step += 1\n"


def _program(writer: str, body: str) -> list[str]:
    return [sys.executable, "-P", "-W", "ignore", "-c", f"import os, sys, time\n{_VALUES}{_WRITERS[writer]}{body}"]


def _cost_us(writer: str, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*_program(writer, _COST), folder, str(steps)], capture_output=True, check=True, text=True
        )
    return float(done.stdout.splitlines()[-1]) / steps * 1e6


def _read_back(writer: str, folder: Path) -> int:
    """Return how many whole steps can be read."""
    if writer == "pilothouse":
        from core.runlog.tail import read_batch

        return sum(len(file.events) for file in read_batch(folder, {}, 1 << 30).files)
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    (path,) = folder.glob("events.out.tfevents.*")
    count = sum(1 for _ in RawEventFileLoader(str(path)).Load()) - 1
    return count // 10 if writer == "tensorboard" else count


def _lost_steps(writer: str) -> int:
    """Return acknowledged minus readable steps after SIGKILL at full speed."""
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen([*_program(writer, _ENDLESS), folder], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            deadline = time.monotonic() + 1.0
            acknowledged = 1
            while time.monotonic() < deadline:
                acknowledged += child.stdout.readline().endswith(b"\n")
            os.kill(child.pid, signal.SIGKILL)
            acknowledged += sum(1 for line in child.stdout if line.endswith(b"\n"))
        return max(0, acknowledged - _read_back(writer, Path(folder)))


def main() -> None:
    """Measure and print."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    costs: dict[str, list[float]] = {writer: [] for writer in _WRITERS}
    for _ in range(rounds):
        for writer in _WRITERS:
            costs[writer].append(_cost_us(writer, steps))
    cpu_us = {writer: round(statistics.median(found), 2) for writer, found in costs.items()}
    ours = cpu_us["pilothouse"]
    print(
        json.dumps(
            {
                "bench": "logging",
                "steps": steps,
                "rounds": rounds,
                "cpu_us_per_step": cpu_us,
                "ratio_to_peer": {peer: round(ours / cost, 4) for peer, cost in cpu_us.items() if peer != "pilothouse"},
                "steps_lost_on_sigkill": {writer: _lost_steps(writer) for writer in _WRITERS},
            }
        )
    )


if __name__ == "__main__":
    main()
