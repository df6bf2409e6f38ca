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
from core.contracts.specs import Device
from core.runlog import emit, layout

Launcher = Literal["python", "torchrun", "accelerate"]
EMITTER_MODULE = "pilothouse_emit.py"


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


def launch_argv(
    interpreter: str, launcher: Launcher, processes: int, device: Device
) -> tuple[list[str], dict[str, str], str]:
    """Return the arguments before the script, the variables they need, and a note.

    ``accelerate launch`` starts a single process when asked for several on a CPU, so that case goes through torchrun.
    """
    if launcher == "python":
        return [interpreter], {}, ""
    on_cpu = device == "cpu" or (device == "auto" and not has_nvidia_gpu())
    env = {"ACCELERATE_USE_CPU": "true"} if launcher == "accelerate" and on_cpu else {}
    if launcher == "accelerate" and not (on_cpu and processes > 1):
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
    note = (
        "" if launcher == "torchrun" else "accelerate launch runs one process on a CPU; torchrun starts them instead."
    )
    argv = [
        interpreter,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nnodes",
        "1",
        "--nproc-per-node",
        str(processes),
    ]
    return [*argv, "--"], env, note


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
        layout.EVENTS_VARIABLE: str(run_dir),
    }
