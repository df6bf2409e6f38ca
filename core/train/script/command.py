"""The command line and environment of a user's script under ``python``, ``torchrun`` or ``accelerate launch``.

Nothing of ours gets onto the script's import path but one file, ``pilothouse_emit.py``. No shell is involved.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import core
from core.contracts.placement import Placement
from core.contracts.specs import Device
from core.runlog import emit, layout

Launcher = Literal["python", "torchrun", "accelerate"]
EMITTER_MODULE = "pilothouse_emit.py"
_JOIN_S = 300
_LAST_CALL_S = 15
_PREFIX = "[rank${rank}]: "


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptCommand:
    """What to start.

    Attributes:
        argv: Program and arguments.
        cwd: Working folder.
        note: A sentence for the log when something else than the plain request is started; may be empty.
        env: Variables to set over those of the worker.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    note: str = ""


def find_interpreter(named: str) -> str | None:
    """Return the path of the Python to use (ours when none is named), None when it is not there."""
    return shutil.which(str(Path(named).expanduser())) if named else sys.executable


def has_nvidia_gpu() -> bool:
    """Tell whether the NVIDIA driver answers with at least one device."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    try:
        return pynvml.nvmlDeviceGetCount() > 0
    except pynvml.NVMLError:
        return False
    finally:
        pynvml.nvmlShutdown()


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class RankGroup:
    """Which ranks this node starts, and with which others they work.

    Attributes:
        placement: All nodes of the run.
        node: This one.
        group_id: The same text on all nodes, another one for each attempt.
        log_folder: Where torchrun may keep the ranks' outputs, which it also prints.
    """

    placement: Placement
    node: str
    group_id: str
    log_folder: Path

    @property
    def processes(self) -> int:
        """Ranks on this node."""
        return self.placement.of(self.node).processes

    @property
    def spans_nodes(self) -> bool:
        """There are other nodes."""
        return len(self.placement.nodes) > 1


def launch_argv(
    interpreter: str, launcher: Launcher, device: Device, group: RankGroup
) -> tuple[list[str], dict[str, str], str]:
    """Return the arguments before the script, the variables they need, and a note.

    ``accelerate launch`` starts a single process when asked for several on a CPU, so that case goes through torchrun; so
    does a run on several nodes.
    """
    processes = group.processes
    if launcher == "python":
        return [interpreter], {}, ""
    on_cpu = device == "cpu" or (device == "auto" and not has_nvidia_gpu())
    env = {"ACCELERATE_USE_CPU": "true"} if launcher == "accelerate" and on_cpu else {}
    if launcher == "accelerate" and not (on_cpu and processes > 1) and not group.spans_nodes:
        argv = [
            interpreter,
            "-m",
            "accelerate.commands.launch",
            "--num_processes",
            str(processes),
            "--num_machines",
            "1",
        ]
        if processes > 1:
            argv += ["--main_process_port", str(free_port())]
        return [*argv, "--cpu"] if on_cpu else argv, env, ""
    note = ""
    if launcher == "accelerate":
        what = "runs on one node here" if group.spans_nodes else "runs one process on a CPU"
        note = f"accelerate launch {what}; torchrun starts them instead."
    return [interpreter, "-m", "torch.distributed.run", *torchrun_options(group), "--"], env, note


def torchrun_options(group: RankGroup) -> list[str]:
    """Return the options of torchrun with which this node starts its ranks and meets the others."""
    placement = group.placement
    options = ["--nproc-per-node", str(group.processes)]
    if group.processes > 1 or group.spans_nodes:
        options += ["--tee", "3", "--log-dir", str(group.log_folder)]
    if not group.spans_nodes or placement.rendezvous is None:
        return ["--standalone", "--nnodes", "1", *options, "--max-restarts", str(placement.max_restarts)]
    nodes = len(placement.nodes)
    fewest = placement.min_nodes if placement.is_elastic else nodes
    is_head = group.node == placement.head.node
    conf = f"is_host={str(is_head).lower()},join_timeout={_JOIN_S},last_call_timeout={_LAST_CALL_S}"
    # Each node that is lost costs the others one restart.
    restarts = max(placement.max_restarts, nodes - fewest)
    return [
        *("--nnodes", f"{fewest}:{nodes}"),
        *options,
        *("--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", _endpoint(placement.head.address, placement.rendezvous.port)),
        *("--rdzv-id", group.group_id),
        *("--rdzv-conf", conf),
        *("--local-addr", _rank_order(placement, group.node)),
        *("--max-restarts", str(restarts)),
    ]


def _rank_order(placement: Placement, node: str) -> str:
    """Return a node's name in the rendezvous: torchrun numbers the ranks in the order of these names.

    Only that of the node with rank 0 is used as an address, and that is the head, which also holds the rendezvous: so the
    others may be called what puts them behind it, in the placement's order.
    """
    index = [placed.node for placed in placement.nodes].index(node)
    address = placement.of(node).address
    return f"~{index:05d}-{address}" if index else address


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def write_emitter(folder: Path) -> Path:
    """Put a copy of the event writer into ``folder`` under the name scripts import it by; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(emit.__file__, folder / EMITTER_MODULE)
    return folder


def threads_per_process(asked: int, processes: int) -> int:
    """Return how many CPU threads each process gets: as asked, or its share of the cores when 0 was asked.

    The supervisor gives this process as many OpenMP threads as the run may use cores.
    """
    cores = int(os.environ.get("OMP_NUM_THREADS") or 0) or os.cpu_count() or 1
    return asked or max(1, cores // processes)


def script_environment(run_dir: Path, emitter_folder: Path, threads: int) -> dict[str, str]:
    """Return the variables every script gets: its import path without our packages, unbuffered output, the emitter."""
    ours = {Path(folder).resolve().parent for folder in core.__path__}
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    kept = [entry for entry in inherited if Path(entry).resolve() not in ours]
    return {
        "PYTHONPATH": os.pathsep.join([str(emitter_folder), *kept]),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONSAFEPATH": "",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": _PREFIX,
        layout.EVENTS_VARIABLE: str(run_dir),
    }
