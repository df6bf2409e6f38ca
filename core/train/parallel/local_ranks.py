"""Starts ranks on this machine that call one function, and collects what each returns.

Used by ``pilothouse check-layouts`` and by tests; runs of the user are started by torchrun (``core.train.ranks``). The
ranks find each other through a store that this process holds, so no port has to be guessed free. A rank ends by itself
when this process ends, however that happens: it reads its standard input, and leaves when that is closed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_POLL_S = 0.05
_END_GRACE_S = 5.0
_SHOWN_CHARACTERS = 6000


class RanksFailed(Exception):
    """A rank failed, or they took too long; the message holds what each of them printed.

    Attributes:
        reason: The last line of the first rank that failed by itself, or that time ran out.
    """

    def __init__(self, reason: str, outputs: str) -> None:
        super().__init__(f"{reason}\n{outputs}")
        self.reason = reason


@dataclass(slots=True, kw_only=True)
class _Rank:
    process: subprocess.Popen[bytes]
    result: Path
    output: Path


def call_in_ranks(
    function: Callable[..., Any] | str,
    size: int,
    arguments: Mapping[str, Any],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
) -> list[Any]:
    """Call ``function(**arguments)`` in ``size`` new processes and return what each returned, by rank.

    Args:
        function: A module-level function of an importable module, or ``module:name`` to leave it unimported here. RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and the
            address of the store are set for it; it calls ``init_process_group`` itself.
        size: How many ranks.
        arguments: What JSON can carry; so must be the result.
        timeout_s: All of them are killed after it.
        env: More environment variables.

    Raises:
        RanksFailed: A rank ended with an error (the others are killed), or time ran out.
    """
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] its documented name

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        **(env or {}),
    }
    target = function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory(prefix="pilothouse-ranks-") as folder, contextlib.ExitStack() as stack:
        (Path(folder) / "arguments.json").write_text(json.dumps(dict(arguments)), encoding="utf-8")
        ranks: list[_Rank] = []
        stack.callback(_end, ranks)
        ranks.extend(_start(target, number, Path(folder), shared) for number in range(size))
        _wait(ranks, time.monotonic() + timeout_s, timeout_s)
        return [json.loads(rank.result.read_text(encoding="utf-8")) for rank in ranks]


def _start(target: str, number: int, folder: Path, env: Mapping[str, str]) -> _Rank:
    result, output = folder / f"result.{number}.json", folder / f"output.{number}.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, target, str(folder / "arguments.json"), str(result)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**env, "RANK": str(number), "LOCAL_RANK": str(number)},
        )
    return _Rank(process=process, result=result, output=output)


def _wait(ranks: Sequence[_Rank], deadline: float, timeout_s: float) -> None:
    while any(rank.process.poll() is None for rank in ranks):
        if any(rank.process.poll() not in (None, 0) for rank in ranks):
            break
        if time.monotonic() > deadline:
            raise RanksFailed(f"the ranks did not end within {timeout_s:.0f} s", _outputs(ranks))
        time.sleep(_POLL_S)
    failed = [rank for rank in ranks if rank.process.poll() not in (None, 0)]
    if failed:
        lines = failed[0].output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RanksFailed(lines[-1] if lines else f"exit status {failed[0].process.poll()}", _outputs(ranks))


def _outputs(ranks: Sequence[_Rank]) -> str:
    def shown(number: int, rank: _Rank) -> str:
        text = rank.output.read_text(encoding="utf-8", errors="replace")[-_SHOWN_CHARACTERS:]
        return f"--- rank {number}, exit status {rank.process.poll()}:\n{text}"

    return "\n".join(shown(number, rank) for number, rank in enumerate(ranks))


def _end(ranks: Sequence[_Rank]) -> None:
    for rank in ranks:
        rank.process.kill()
    for rank in ranks:
        rank.process.wait(_END_GRACE_S)
        if rank.process.stdin is not None:
            rank.process.stdin.close()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _main(target: str, arguments: Path, result: Path) -> None:
    module, _, name = target.partition(":")
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    value = getattr(importlib.import_module(module), name)(**json.loads(arguments.read_text(encoding="utf-8")))
    result.write_text(json.dumps(value), encoding="utf-8")
    # torch's process groups and their threads may hang or warn when the interpreter tears them down: the work is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
