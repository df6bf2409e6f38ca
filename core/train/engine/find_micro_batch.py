"""Finds the largest micro-batch that fits into memory, with the samples per step as asked.

Sizes are tried from small to large; after each, the next one's need is extrapolated from the two before it, over the
fullest rank, and it is tried only if it fits. So memory hardly ever really runs out, which on a CPU would call the
kernel's killer, and in a collective would leave the other ranks waiting. Where a GPU's allocator still refuses, a single
process takes the size before; of several ranks the one ends the run, for the others wait in its passes. What the passes
changed of the model, such as running statistics, is put back.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import psutil
import torch
from torch import nn

from core.contracts.errors import Cancelled, UserError
from core.contracts.worker import RunContext
from core.train.data.batches import make_batches
from core.train.engine.contracts import DataPart
from core.train.engine.meters import peak_memory_bytes
from core.train.engine.passes import Passes
from core.train.specs.loading import LoadingSpec
from core.train.specs.training import TrainingSpec

_USABLE = 0.9
_MOST = 65_536


def sizes(samples: int, fewest_micro_batches: int, least: int = 1) -> list[int]:
    """Return the micro-batches that divide the samples of a rank's step and leave enough of them, rising."""
    most = min(samples // fewest_micro_batches, _MOST)
    return [size for size in range(least, most + 1) if samples % size == 0]


def find_micro_batch(spec: TrainingSpec, context: RunContext, passes: Passes, part: DataPart) -> tuple[int, int]:
    """Return micro-batch and micro-batches per step. Called on every rank, before there is an optimizer.

    Args:
        spec: Gives the samples of a step.
        context: The run.
        passes: Runs the passes of a step.
        part: The training part.

    Raises:
        Cancelled: A stop was asked for meanwhile.
        UserError: A GPU of several ranks ran out of memory.
    """
    samples = spec.micro_batch * spec.optimizer.grad_accum_steps
    fewest = spec.parallel.pipeline
    tried: list[tuple[int, float]] = []
    limit = _limit_bytes(passes)
    with _unchanged_buffers(passes.model.parts):
        for size in sizes(samples, fewest, _least(passes.model.parts)):
            if passes.agreement.any(context.should_stop()):
                raise Cancelled
            if _expected(tried, size) > limit:
                break
            needed = _peak(passes, part, size, fewest)
            if needed is None:
                break
            tried.append((size, needed))
            if needed > limit:
                break
    fitting = [size for size, needed in tried if needed <= limit]
    chosen = max(fitting, default=spec.micro_batch)
    if passes.model.mesh.is_main:
        rows = [(size, needed / 2**20) for size, needed in tried]
        context.table("Micro-batch sizes tried", ("samples", "peak memory (MiB)"), rows)
        context.log(
            f"The micro-batch {chosen} is used, {samples // chosen} of them a step ({limit / 2**30:.1f} GiB usable)."
        )
    return chosen, samples // chosen


def _least(parts: Sequence[nn.Module]) -> int:
    """Return the fewest samples that a model trains on: batch norms compare samples with each other."""
    return 2 if any(getattr(m, "running_mean", None) is not None for part in parts for m in part.modules()) else 1


@contextmanager
def _unchanged_buffers(parts: Sequence[nn.Module]) -> Generator[None]:
    held = [(buffer, buffer.clone()) for part in parts for buffer in part.buffers()]
    try:
        yield
    finally:
        for buffer, before in held:
            buffer.copy_(before)


def _limit_bytes(passes: Passes) -> float:
    """Return the memory that a rank may use, by the one that has least: ranks of a host share its memory on a CPU."""
    mesh = passes.model.mesh
    if mesh.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(mesh.device)
        own = _USABLE * (free + torch.cuda.memory_reserved(mesh.device))
    else:
        here = max(row[0] for row in passes.agreement.gather([float(mesh.local_rank)])) + 1
        own = peak_memory_bytes(mesh.device) + _USABLE * psutil.virtual_memory().available / here
    # Gradients are there after the first passes; the optimizer's two moments still have to fit.
    moments = sum(2 * 4 * p.numel() for part in passes.model.parts for p in part.parameters() if p.requires_grad)
    return min(row[0] for row in passes.agreement.gather([own - moments]))


def _expected(tried: list[tuple[int, float]], size: int) -> float:
    """Return the bytes that a size is expected to need: a straight line through the last two."""
    if len(tried) < 2:
        return 0.0
    (before, less), (last, more) = tried[-2:]
    return more + max(0.0, more - less) / (last - before) * (size - last)


def _peak(passes: Passes, part: DataPart, size: int, micro_batches: int) -> float | None:
    """Return the peak of memory over all ranks in bytes with micro-batches of a size; None when it ran out."""
    device = passes.model.mesh.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    ran_out = False
    loading = LoadingSpec(loading_processes=0)
    batches = make_batches(part, passes.model.mesh, micro_batch=size, seed=0, loading=loading)
    try:
        passes.run(batches.next_step(micro_batches))
    except torch.OutOfMemoryError as error:
        if passes.model.mesh.is_distributed:
            raise UserError(
                f"The memory of {device} ran out when micro-batches of {size} samples were tried.",
                f"Turn tuning.find_micro_batch off and set micro_batch below {size}.",
            ) from error
        ran_out = True
    finally:
        batches.close()
    for module in passes.model.parts:
        module.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    rows = passes.agreement.gather([peak_memory_bytes(device), float(ran_out)])
    return None if any(row[1] > 0 for row in rows) else max(row[0] for row in rows)
