"""Trains small tasks with the engine, in this process or as one of several ranks, and returns what was reported.

Several trainings go through one start of the ranks: each has a store of its own to build its process group on.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.distributed import TCPStore

from core.contracts.errors import PilothouseError
from core.jobs.context import WorkerContext
from core.runlog.layout import RunLayout
from core.train.engine.contracts import TrainingTask
from core.train.engine.train import train
from tests.helpers.digit_task import RowSpec, RowTask
from tests.helpers.token_task import TokenTask
from tests.helpers.waiting import wait_for

Task = RowTask | TokenTask
RUN_ID = "20260101-000000-engine-abcdef"


class SpyContext(WorkerContext):
    """A real worker's handle that also keeps what was reported."""

    def __init__(self, home: Path, *, rank: int = 0, attempt: int = 1, node: str = "local") -> None:
        run_dir = home / "runs" / RUN_ID
        for folder in (RunLayout(run_dir).scratch, RunLayout(run_dir).control, RunLayout(run_dir).checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(home, run_dir, attempt, node=node, writer=str(rank))
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.logs: list[str] = []
        self.starts: list[int | None] = []
        self.acts: list[tuple[int, str, str]] = []
        self.stop_at: int | None = None

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        self.metrics.append((step, dict(values)))
        super().metric(step, values)

    def log(self, message: str, level: str = "info") -> None:
        self.logs.append(message)
        super().log(message, level)

    def started_from(self, step: int | None) -> None:
        self.starts.append(step)
        super().started_from(step)

    def stability(self, step: int, signal: str, action: str, message: str = "") -> None:
        self.acts.append((step, signal, action))
        super().stability(step, signal, action, message)

    def should_stop(self) -> bool:
        return (
            self.stop_at is not None and len(self.curve("memory/peak_bytes")) > 0 and self.stop_at <= self._steps_seen()
        )

    def _steps_seen(self) -> int:
        return max((step for step, _ in self.metrics), default=0)

    def curve(self, key: str) -> list[float]:
        """Return the values of one metric, in the order reported."""
        return [values[key] for _, values in self.metrics if key in values]

    def losses(self) -> dict[int, float]:
        """Return the training loss of every step, as it was done last."""
        return {step: values["train/loss"] for step, values in self.metrics if "train/loss" in values}


def run_once(context: SpyContext, spec: Mapping[str, Any], task: TrainingTask) -> dict[str, Any]:
    """Train in this process or rank and return what came of it, as plain values.

    Returns:
        ``losses`` by step (as text, for JSON), ``error`` (empty when it went well), logs, starts, acts, and a fingerprint
        of the weights handed over.
    """
    error = ""
    try:
        train(msgspec.convert({"kind": "test.rows", "device": "cpu", **spec}, RowSpec), context, lambda *_: task)
    except PilothouseError as caught:
        error = str(caught)
    finally:
        context.close()
    finished: dict[str, torch.Tensor] = getattr(task, "finished", {})
    return {
        "losses": {str(step): loss for step, loss in context.losses().items()},
        "validation": context.curve("val/loss"),
        "error": error,
        "logs": context.logs,
        "starts": context.starts,
        "acts": context.acts,
        "scales": context.curve("train/loss_scale"),
        "metrics": sorted({key for _, values in context.metrics for key in values}),
        "weights": {name: float(tensor.double().abs().sum()) for name, tensor in finished.items()},
    }


def run_cases(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train one case after the other in this rank; return what each gave.

    Args:
        cases: Each with ``spec``, ``home``, and optionally ``task`` (``tokens``, ``rows`` or ``running``: with batch norms), ``attempt``, ``fault``,
            ``own_homes`` (ranks share no disk).
    """
    rank = int(os.environ.get("RANK", "0"))
    found: list[dict[str, Any]] = []
    stores: list[object] = []
    for number, case in enumerate(cases):
        stores.append(new_store(Path(case["home"]), number, rank))
        own = case.get("own_homes", False)
        home = Path(case["home"]) / (f"node{rank}" if own else "")
        context = SpyContext(home, rank=rank, attempt=case.get("attempt", 1), node=f"n{rank}" if own else "local")
        task = _task_of(case)
        undo = FAULTS[case["fault"]](context, task, rank) if "fault" in case else None
        try:
            found.append(run_once(context, case["spec"], task))
        finally:
            if undo is not None:
                undo()
    return found


def _task_of(case: Mapping[str, Any]) -> Task:
    match case.get("task", "tokens"):
        case "rows":
            return RowTask(dropout=0.2)
        case "running":
            return RowTask(running=True)
        case _:
            return TokenTask(tied=case.get("tied", False))


def new_store(folder: Path, number: int, rank: int) -> object:
    """Let the ranks of the next training find each other in a new store; return it, to be kept while it is used."""
    if "WORLD_SIZE" not in os.environ:
        return None
    port = folder.parent / f"port-{number}"
    store = None
    if rank == 0:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        (folder.parent / f"port-{number}.new").write_text(str(store.port))
        (folder.parent / f"port-{number}.new").rename(port)
    wait_for(port.exists, "the store of the next training", 60.0)
    os.environ["MASTER_PORT"] = port.read_text()
    return store


def _stop_rank_1(context: SpyContext, task: Task, rank: int) -> None:
    del task
    if rank == 1:
        context.stop_at = 1


def _stop_after_three(context: SpyContext, task: Task, rank: int) -> None:
    del task
    if rank == 0:
        context.stop_at = 3


def _spoil_rank_1(context: SpyContext, task: Task, rank: int) -> None:
    """Make the third step's first loss of rank 1 not a number."""
    del context
    if rank == 1 and isinstance(task, RowTask):
        task.loss_scale = lambda number: math.nan if number == 5 else 1.0


def _overflow_rank_1(context: SpyContext, task: Task, rank: int) -> None:
    """Make the third step's first gradient of rank 1 overflow fp16."""
    del context
    if rank == 1 and isinstance(task, RowTask):
        task.loss_scale = lambda number: 1e8 if number == 5 else 1.0


def _fill_disk_of_rank_1(context: SpyContext, task: Task, rank: int) -> Callable[[], None]:
    """Let the shards of rank 1 meet a full disk, from the second checkpoint on."""
    from torch.distributed.checkpoint import filesystem

    del context, task
    real = filesystem._write_files_from_queue
    saves = [0]

    def refuse(*args: Any, **kwargs: Any) -> None:
        saves[0] += 1
        if rank == 1 and saves[0] > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **kwargs)

    filesystem._write_files_from_queue = refuse
    return lambda: setattr(filesystem, "_write_files_from_queue", real)


FAULTS: dict[str, Callable[[SpyContext, Task, int], Callable[[], None] | None]] = {
    "nan on rank 1": _spoil_rank_1,
    "overflow of rank 1": _overflow_rank_1,
    "stop rank 1": _stop_rank_1,
    "stop after 3 steps": _stop_after_three,
    "disk of rank 1 full": _fill_disk_of_rank_1,
}
