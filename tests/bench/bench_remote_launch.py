"""What a launch on two hosts costs against the same torchrun typed by hand over ``ssh``: seconds to the script's first line.

Both start a script that imports nothing on two real hosts (namespaces with an sshd each; needs root). By hand: one
``ssh HOST torchrun ...`` for each host, at once. Through Pilothouse: ``Workspace.launch_spec`` with the hosts connected
(``warm``, as with the window open) and with nothing connected (``cold``). torchrun's own start, several seconds, is in all.
Prints one JSON line.

    python -m tests.bench.bench_remote_launch [ROUNDS]
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core.contracts.hosts import RuntimeRecord
from core.plugins.decode import decode_spec
from core.workspace.workspace import Workspace
from tests.helpers.host_lab import HostLab, opened_host_lab
from tests.helpers.waiting import wait_for

_HOSTS = ("h1", "h2")
_SCRIPT = """import sys, time
from pathlib import Path
Path(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else 'x').with_suffix('.' + __import__('os').environ['RANK']).write_text(str(time.time()))
"""


def started(folder: Path) -> float:
    """Return when the last of the two ranks ran its first line, Unix seconds."""
    wait_for(lambda: len(list(folder.iterdir())) >= len(_HOSTS), "both ranks to start", 300)
    return max(float(path.read_text()) for path in folder.iterdir())


def by_hand(lab: HostLab, script: Path, folder: Path, port: int) -> float:
    """Return the seconds from typing to the script's first line on both hosts."""
    folder.mkdir()
    torchrun = (
        f"OMP_NUM_THREADS=1 TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 GLOO_SOCKET_IFNAME=eth0 {sys.executable} -m "
        f"torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id {port} "
        f"--rdzv-endpoint {lab.address('h1')}:{port} -- {script} {folder} mark"
    )
    began = time.time()
    typed = [subprocess.Popen(["ssh", "-F", str(lab.ssh_config), host, torchrun]) for host in _HOSTS]
    seconds = started(folder) - began
    for process in typed:
        process.wait(300)
    return seconds


def launched(workspace: Workspace, script: Path, folder: Path) -> tuple[float, float]:
    """Return the seconds until the launch returned, and from its begin to the script's first line on both hosts."""
    folder.mkdir()
    asked = {
        "kind": "train.script",
        "script": str(script),
        "args": [str(folder), "mark"],
        "launcher": "torchrun",
        "launch": {"hosts": list(_HOSTS), "threads": 1},
    }
    began = time.time()
    run_id = workspace.launch_spec(decode_spec(asked))
    returned = time.time() - began
    seconds = started(folder) - began
    workspace.wait(run_id)
    return returned, seconds


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    hand: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    returns: list[float] = []
    with tempfile.TemporaryDirectory() as name, opened_host_lab(len(_HOSTS)) as lab:
        folder = Path(name)
        script = folder / "code" / "first_line.py"
        script.parent.mkdir()
        script.write_text(_SCRIPT)
        for number in range(rounds):
            workspace = Workspace.open(folder / f"home{number}")
            shutil.copy(lab.known_hosts, workspace.home.known_hosts)
            runtime = RuntimeRecord(kind="interpreter", python=sys.executable)
            for host in _HOSTS:
                workspace.fleet.add(lab.record_by_hand(host, runtime=runtime))
            hand.append(by_hand(lab, script, folder / f"hand{number}", 29600 + number))
            cold.append(launched(workspace, script, folder / f"cold{number}")[1])
            returned, seconds = launched(workspace, script, folder / f"warm{number}")
            warm.append(seconds)
            returns.append(returned)
            workspace.close()
    typed = statistics.median(hand)
    print(
        json.dumps(
            {
                "bench": "remote_launch",
                "rounds": rounds,
                "by_hand_s": round(typed, 2),
                "cold_s": round(statistics.median(cold), 2),
                "warm_s": round(statistics.median(warm), 2),
                "cold_overhead_s": round(statistics.median(cold) - typed, 2),
                "warm_overhead_s": round(statistics.median(warm) - typed, 2),
                "warm_launch_returns_s": round(statistics.median(returns), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
