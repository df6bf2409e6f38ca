"""Pipeline parallel: stages of a decoder on consecutive ranks, run by the schedules of ``torch.distributed.pipelining``.

Tokens, positions, documents and labels are on every rank already (all model ranks get the same micro-batches), so only
the residual stream and its gradient travel. Sources: GPipe (Huang et al., 2019), 1F1B (Narayanan et al., 2019),
interleaved (Narayanan et al., 2021), looped BFS (Lamy-Poirier, 2022), zero bubble and ZBV (Qi et al., 2023 and 2024),
DualPipeV (DeepSeek, 2025). Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    PipelineScheduleMulti,
    Schedule1F1B,
    ScheduleDualPipeV,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS,
    ScheduleZBVZeroBubble,
)

from core.contracts.errors import UserError
from core.train.engine.contracts import Batch
from core.train.parallel.base import LaidOut, Passes
from core.train.parallel.context_split import ContextSplit
from core.train.parallel.decoder import DecoderLM
from core.train.parallel.layout import V_SHAPED, pipeline_stages
from core.train.parallel.mesh import group_of
from core.train.parallel.norms import Norms, local
from core.train.parallel.sharding import GradientSum, reshard, settle
from core.train.specs.parallel import ParallelSpec

_SINGLE = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
_MULTIPLE: dict[str, type[PipelineScheduleMulti]] = {
    "interleaved": ScheduleInterleaved1F1B,
    "looped-bfs": ScheduleLoopedBFS,
    "interleaved-zero-bubble": ScheduleInterleavedZeroBubble,
    "zbv": ScheduleZBVZeroBubble,
    "dualpipev": ScheduleDualPipeV,
}
_TRAVELLING = ("position_ids", "segment_ids")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_RESIDUAL_DIMENSIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Which rank of the pipeline has which stages.

    Attributes:
        schedule: Name of the schedule, as in the spec.
        ranks: Ranks of the pipeline.
        total: Stages of all of them.
        mine: Numbers of this rank's stages, in the order of its parts.
    """

    schedule: str
    ranks: int
    total: int
    mine: tuple[int, ...]

    def owner(self, stage: int) -> int:
        """Return the pipeline rank that has a stage."""
        if self.schedule in V_SHAPED and stage >= self.ranks:
            return self.total - 1 - stage
        return stage % self.ranks


def stage_numbers(parallel: ParallelSpec, rank: int) -> Stages:
    """Return the stages of a pipeline rank: one, one each round, or one down and one up a V."""
    total = pipeline_stages(parallel)
    is_v = parallel.schedule in V_SHAPED
    mine = (rank, total - 1 - rank) if is_v else tuple(range(rank, total, parallel.pipeline))
    return Stages(schedule=parallel.schedule, ranks=parallel.pipeline, total=total, mine=mine)


class PipelineModel(LaidOut):
    """A ``ParallelModel`` cut between layers."""

    def __init__(
        self, passes: Passes, parts: Sequence[DecoderLM], norms: Norms, *, stages: Stages, context: ContextSplit | None
    ) -> None:
        """Take this rank's stages, laid out.

        Args:
            passes: Task and arithmetic.
            parts: The stages.
            norms: Their norms.
            stages: Which they are.
            context: Given where sequences are shared out.
        """
        super().__init__(passes, parts, norms)
        self._stage_parts = parts
        group = group_of(passes.mesh, "pipeline")
        assert group is not None, "a pipeline has several ranks"
        self._group = group
        self._stages = stages
        self._context = context
        self._sum: GradientSum | None = None
        self._prepared: tuple[tuple[int, ...], Any] | None = None
        self._step: list[Batch] = []
        self._losses: dict[int, torch.Tensor] = {}
        self._total = 1.0

    def sum_with(self, summed: GradientSum) -> None:
        """Have gradients summed over data ranks once a step."""
        self._sum = summed

    @property
    def _has_first(self) -> bool:
        return self._stages.owner(0) == self.mesh.pipeline_rank

    @property
    def _has_last(self) -> bool:
        return self._stages.owner(self._stages.total - 1) == self.mesh.pipeline_rank

    def forward_backward(self, micro_batches: Sequence[Batch], *, total: float) -> torch.Tensor:
        """See ``ParallelModel``; micro-batches must be of one shape, and at least as many as the schedule needs."""
        self._step = [self._placed(batch) for batch in micro_batches]
        self._total = total
        self._losses = {}
        travelling = [{k: b[k] for k in _TRAVELLING if k in b} for b in self._step]
        self._schedule().step(
            arg_mbs=[(batch["input_ids"],) for batch in self._step] if self._has_first else None,
            kwarg_mbs=travelling,
            target_mbs=[torch.tensor(number) for number in range(len(self._step))] if self._has_last else None,
            return_outputs=False,
        )
        loss_sum = torch.zeros((), dtype=torch.float32, device=self.mesh.device)
        for loss in self._losses.values():
            loss_sum += loss
        self._step, self._losses = [], {}
        self._settle()
        dist.all_reduce(loss_sum, group=self._group)
        if self._context is not None:
            dist.all_reduce(loss_sum, group=self._context.group)
        return loss_sum

    def _placed(self, batch: Batch) -> Batch:
        batch = self.on_device(batch)
        if self._context is not None:
            return self._context.split(batch)
        ids = batch["input_ids"]
        return {"position_ids": torch.arange(ids.shape[1], device=ids.device).expand_as(ids), **batch}

    def _settle(self) -> None:
        if self.mesh.tensor_size > 1:
            settle(self.parameters)
        if self._sum is not None:
            self._sum.run()
        if self._stage_parts[0].is_tied and self._has_first != self._has_last:
            self._sum_tied()

    @torch.no_grad()
    def _sum_tied(self) -> None:
        """Add up the gradients of the embedding that the first and the last rank have of the same weight."""
        ends = [part for part in self._stage_parts if part.is_first or part.is_last]
        body: Any = ends[0].model
        weight: torch.Tensor = body.embed_tokens.weight
        if weight.grad is None:
            return
        gradient = local(weight.grad)
        other = torch.empty_like(gradient)
        peer = self._stages.owner(self._stages.total - 1) if self._has_first else self._stages.owner(0)
        operations = [
            dist.P2POp(dist.isend, gradient.contiguous(), group=self._group, group_peer=peer),
            dist.P2POp(dist.irecv, other, group=self._group, group_peer=peer),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        gradient += other

    def _loss(self, output: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Return what the backward pass of a micro-batch starts from; called by the schedule on the last stage."""
        batch = self._step[int(number)]
        loss = self._passes.task.loss(output, batch)
        self._losses[int(number)] = loss.detach()
        return self._passes.arithmetic.scale_loss(loss / self._total)

    def _schedule(self) -> Any:
        """Return the schedule for the shape of this step; a new one where it differs from the last step's."""
        shapes = {tuple(batch["input_ids"].shape) for batch in self._step}
        if len(shapes) != 1:
            raise UserError(
                f"A pipeline needs micro-batches of one shape, but this step has {sorted(shapes)}.",
                "Pack or pad the data to one length.",
            )
        key = (len(self._step), *shapes.pop(), int("segment_ids" in self._step[0]))
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = (key, self._new_schedule(len(self._step)))
        return self._prepared[1]

    def _new_schedule(self, micro_batches: int) -> Any:
        stages = [
            PipelineStage(part, number, self._stages.total, self.mesh.device, group=self._group)
            for number, part in zip(self._stages.mine, self.parts, strict=True)
        ]
        options: dict[str, Any] = {"loss_fn": self._loss, "scale_grads": False}
        try:
            if self._stages.schedule in _SINGLE:
                return _SINGLE[self._stages.schedule](stages[0], micro_batches, **options)
            return _MULTIPLE[self._stages.schedule](list(stages), micro_batches, **options)
        except ValueError as error:
            raise UserError(
                f"The schedule {self._stages.schedule} cannot run {micro_batches} micro-batches: {error}",
                f"Choose gradient accumulation as a multiple of {self._stages.total}.",
            ) from error

    @torch.no_grad()
    def forward(self, batch: Batch) -> torch.Tensor | None:
        """See ``ParallelModel``: the batch goes through all stages, one after another."""
        batch = self._placed(batch)
        travelling = {key: batch[key] for key in _TRAVELLING if key in batch}
        parts = dict(zip(self._stages.mine, self.parts, strict=True))
        value: torch.Tensor | None = batch["input_ids"]
        me = self.mesh.pipeline_rank
        for number in range(self._stages.total):
            if self._stages.owner(number) != me:
                continue
            source = self._stages.owner(number - 1) if number else me
            if source != me:
                value = self._receive(source)
            value = parts[number](value, **travelling)
            reshard(parts[number])
            target = self._stages.owner(number + 1) if number + 1 < self._stages.total else me
            if target != me:
                self._send(value, target)
        if not self._has_last or value is None:
            return None
        return value if self._context is None else self._context.join(value)

    def _send(self, value: torch.Tensor | None, target: int) -> None:
        assert value is not None
        header = torch.tensor([_DTYPES.index(value.dtype), *value.shape], device=value.device)
        dist.send(header, group=self._group, group_dst=target)
        dist.send(value.contiguous(), group=self._group, group_dst=target)

    def _receive(self, source: int) -> torch.Tensor:
        header = torch.zeros(1 + _RESIDUAL_DIMENSIONS, dtype=torch.int64, device=self.mesh.device)
        dist.recv(header, group=self._group, group_src=source)
        dtype, *shape = header.tolist()
        value = torch.empty(shape, dtype=_DTYPES[dtype], device=self.mesh.device)
        dist.recv(value, group=self._group, group_src=source)
        return value
