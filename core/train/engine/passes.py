"""The passes of one step over all ranks: what they have to agree on, the loss, and gradients ready for an update."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from core.train.engine.agreement import Agreement
from core.train.engine.contracts import Batch, GradientNorms, ParallelModel, TrainingTask
from core.train.engine.meters import marked
from core.train.engine.precision import Arithmetic
from core.train.penalty import add_l1_gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class PassResult:
    """What the passes of a step gave; the same on every rank, but for ``seconds``.

    Attributes:
        units: Counted units of all data ranks.
        loss: Mean loss per unit.
        told: What each rank told the others, by rank.
        norms: Norms of the gradient.
        seconds: Seconds of the passes on this rank, until the gradient's norm is known.
    """

    units: float
    loss: float
    norms: GradientNorms
    told: tuple[tuple[float, ...], ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passes:
    """Runs the passes of a step. Thread: the main one, on every rank.

    Attributes:
        l1: Factor of the L1 penalty; its gradient is added, the loss is reported without it.
    """

    task: TrainingTask
    model: ParallelModel
    arithmetic: Arithmetic
    agreement: Agreement
    l1: float = 0.0

    def run(self, micro_batches: Sequence[Batch], tell: Sequence[float] = (), *, by_block: bool = False) -> PassResult:
        """Do forward and backward passes; gradients are left unscaled, with penalties.

        Args:
            micro_batches: This data rank's.
            tell: Values for the other ranks, as many on each; they go with an exchange that is needed anyway.
            by_block: Measure the gradient of each block too.
        """
        own_units = float(sum(self.task.count(batch) for batch in micro_batches))
        rows = self.agreement.gather([own_units, *tell])
        units = sum(rows[rank][0] for rank in self.agreement.data_leaders)
        started = time.perf_counter()
        with marked("forward_backward"):
            loss_sum = self.model.forward_backward(micro_batches, total=max(units, 1.0))
            if self.arithmetic.scaler is not None:
                self.model.scale_gradients(1.0 / self.arithmetic.scaler.scale)
            add_l1_gradients(self.model.parts, self.l1)
            # Reading the norms waits for the device; the loss is there by then and costs no second wait.
            norms = self.model.gradient_norms(by_block=by_block)
        seconds = time.perf_counter() - started
        losses = self.agreement.gather([float(loss_sum)])
        return PassResult(
            units=units,
            loss=sum(losses[rank][0] for rank in self.agreement.data_leaders) / max(units, 1.0),
            norms=norms,
            told=tuple(tuple(row[1:]) for row in rows),
            seconds=seconds,
        )
