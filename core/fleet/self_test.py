"""What a host's Python environment can do, found out there: ``python -P -m core.fleet.self_test``; prints one JSON line.

Imports what runs need, looks for GPUs through torch, and lets two processes add a number over gloo, and over NCCL where
there are two GPUs. With ``versions`` it only looks at what is installed, in a fraction of a second. It starts processes of its own and ends them; it changes nothing. ``core.fleet.runtimes`` runs it and
makes findings of the answer.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from core.fleet.self_test_answer import MARK, SelfTest, TorchFacts, import_name
from core.fleet.worker_wheel import EXTRAS, REQUIRED, worker_version

_ALL_REDUCE_LIMIT_S = 90.0


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _missing() -> dict[str, str]:
    problems: dict[str, str] = {}
    for name in REQUIRED:
        try:
            importlib.import_module(import_name(name))
        except Exception as error:  # noqa: BLE001 - a damaged package may raise anything
            problems[name] = _sentence(error)
    return problems


def _packages() -> dict[str, str]:
    names = sorted({*REQUIRED, *(name for extra in EXTRAS.values() for name in extra), "transformers"})
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _all_reduce(backend: str) -> str:
    """Let two processes add a number; return why that failed, empty when it worked."""
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-P", "-m", "core.fleet.self_test", "rank", backend]
    ranks = [
        subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=_ALL_REDUCE_LIMIT_S)[0] for rank in ranks]
    except subprocess.TimeoutExpired:
        return f"two processes did not meet within {_ALL_REDUCE_LIMIT_S:.0f} s"
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    failed = [output for output, rank in zip(said, ranks, strict=True) if rank.returncode]
    lines = failed[0].decode(errors="replace").strip().splitlines() if failed else []
    return lines[-1] if lines else "a process ended without a word" if failed else ""


def _rank(backend: str, rank: int) -> int:
    """Be one of the two processes."""
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    dist.init_process_group(backend, rank=rank, world_size=2)
    value = torch.full((1,), float(rank + 1), device=device)
    dist.all_reduce(value)
    dist.destroy_process_group()
    return 0 if float(value.item()) == 3.0 else 1


def _torch() -> tuple[TorchFacts | None, str]:
    if importlib.util.find_spec("torch") is None:
        return None, ""
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a build for another system may raise anything
        return None, _sentence(error)
    gpus = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    version: Any = torch.version
    facts = TorchFacts(
        version=str(torch.__version__),
        cuda=version.cuda or version.hip or "",
        gpus=gpus,
        collectives={backend: _all_reduce(backend) for backend in ("gloo", *(["nccl"] if len(gpus) > 1 else []))},
    )
    return facts, ""


def _installed_torch() -> tuple[TorchFacts | None, str]:
    """Read what is known of torch without importing it: that takes seconds."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None, ""
    try:
        text = Path(found.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    except OSError as error:
        return None, _sentence(error)
    said = dict(re.findall(r"^(__version__|cuda|hip)\b[^=\n]*= *'([^']*)'", text, re.MULTILINE))
    built_for = said.get("cuda") or said.get("hip") or ""
    return TorchFacts(version=said.get("__version__", ""), cuda=built_for, gpus=(), collectives={}), ""


def examine(*, versions_only: bool = False) -> SelfTest:
    """Try everything, which takes seconds where torch is installed; or only look at what is there."""
    missing = _missing()
    kinds, broken = 0, ()
    if not missing:
        from core.plugins.registry import registry

        found = registry()
        kinds, broken = len(found.kinds), tuple(f"{kind.module}: {kind.reason}" for kind in found.broken)
    torch, problem = _installed_torch() if versions_only else _torch()
    return SelfTest(
        python=sys.version.split()[0],
        worker_version=worker_version(),
        missing=missing,
        packages=_packages(),
        kinds=kinds,
        broken_kinds=broken,
        torch=torch,
        torch_problem=problem,
    )


def main(arguments: list[str]) -> int:
    """Print the answer, or be one rank of an all-reduce."""
    if arguments[:1] == ["rank"]:
        return _rank(arguments[1], int(arguments[2]))
    # What libraries print while they are imported must not end up in the line.
    sys.stdout.write(f"\n{MARK}{msgspec.json.encode(examine(versions_only=arguments == ['versions'])).decode()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
