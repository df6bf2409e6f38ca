"""What the parts of the engine ask of each other: tasks, data, the model laid out over ranks, the guard.

Words: a *rank* is one process of the training; the *model ranks* hold one copy of the model together (tensor x pipeline x
context) and work on the same samples; the *data ranks* work on different samples. A *micro-batch* is what one forward
pass takes; a *step* is one optimizer step over ``grad_accum_steps`` micro-batches of every data rank.

Losses are sums: a step's loss is (sum over all micro-batches of all data ranks) / (their counted units), so that unequal
token counts per micro-batch weigh as they would in one process. Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

Batch = dict[str, torch.Tensor]
"""A micro-batch on the CPU: tensors whose first dimension is the sample."""


class SampleKey(NamedTuple):
    """Names one use of one sample. Whatever is random about it is drawn from (seed, epoch, number), and nothing else."""

    number: int
    epoch: int


class Samples(Protocol):
    """A data set with random access. Picklable, for loading processes."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, key: SampleKey) -> Any:
        """Return a sample; raises UserError naming file and row when it cannot be read or decoded."""
        ...


Collate = Callable[[Sequence[Any]], Batch]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataPart:
    """A part of the data (training, validation) and how samples become a micro-batch."""

    samples: Samples
    collate: Collate


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a validation found: values to plot, and a score whose greatest value marks the best weights."""

    values: dict[str, float]
    score: tuple[float, ...]


class TrainingTask(Protocol):
    """What the engine asks of a task; the same on every rank.

    Attributes:
        unit: What ``count`` counts: ``tokens`` or ``samples``; the rate is reported as ``train/<unit>_per_s``.
    """

    unit: str

    def build_model(self) -> nn.Module:
        """Return the whole model on the CPU in float32, with the same weights on every rank (drawn from the spec's seed)."""
        ...

    def training(self) -> DataPart:
        """Return the training part."""
        ...

    def validation(self) -> DataPart | None:
        """Return the validation part; None: no validation."""
        ...

    def count(self, batch: Batch) -> int:
        """Return over how many units ``loss`` sums in a micro-batch (such as tokens with a label)."""
        ...

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the model's output (such as logits) for a micro-batch on the model's device."""
        ...

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the SUM of the losses of a micro-batch over its counted units, float32."""
        ...

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        """Return sums that ``evaluation`` is computed from, the same keys for every batch; they add up over batches and ranks."""
        ...

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        """Return the values of a validation from the sums over all of it."""
        ...

    def training_flops(self, units: int) -> float:
        """Return the model FLOPs of forward and backward over ``units`` counted units; 0 when they are not known."""
        ...

    def after_validation(self, model: nn.Module, step: int) -> None:
        """Show something of the model, such as generated text; called on rank 0, and only where it holds the whole model."""
        ...

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        """Write what the run leaves behind; called on rank 0 only, with the whole best weights on the CPU."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the training went.

    Attributes:
        steps: Optimizer steps done.
        best_step: Step of the weights handed to ``finish``.
        best_values: What their validation found; empty without a validation.
        train_seconds: Seconds in steps and validations over all attempts.
    """

    steps: int
    best_step: int
    best_values: dict[str, float]
    train_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mesh:
    """Where this rank stands. In a single process all sizes are 1 and ``device_mesh`` is None.

    Attributes:
        device: This rank's device.
        rank: Number of this rank in the run, of ``world`` ranks.
        local_rank: Its number on its node.
        data_rank: Which samples it works on, of ``data_size`` parts; ranks with the same number get the same micro-batches.
        replicas: Copies that sharded weights are kept in (HSDP); ``data_size`` / ``replicas`` ranks shard one copy.
        tensor_rank, pipeline_rank, context_rank: Its place among the model ranks.
        device_mesh: Dimensions ``pipeline``, ``replicate``, ``shard``, ``context``, ``tensor``, those of size 1 included.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    data_rank: int = 0
    data_size: int = 1
    replicas: int = 1
    tensor_rank: int = 0
    tensor_size: int = 1
    pipeline_rank: int = 0
    pipeline_size: int = 1
    context_rank: int = 0
    context_size: int = 1
    device_mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """True for the one rank that reports for all."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """True when there are other ranks."""
        return self.world > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNorms:
    """Euclidean norms of the gradient before clipping, the same on every rank.

    Attributes:
        total: Over all weights of all ranks.
        blocks: By block of the model (``model.layers.3``, ``model.embed_tokens``, ...).
    """

    total: float
    blocks: dict[str, float] = field(default_factory=dict[str, float])


class Arithmetic(Protocol):
    """Precision of the passes; see ``core.train.engine.precision``."""

    def autocast(self) -> torch.autocast:
        """Return the context for forward passes; one that does nothing in fp32."""
        ...

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss times the loss scale (fp16), or itself."""
        ...

    def reduce_dtype(self) -> tuple[torch.dtype | None, torch.dtype | None]:
        """Return the types that sharded weights are gathered and gradients reduced in; None: as they are."""
        ...

    def prepare(self, blocks: Sequence[nn.Module]) -> None:
        """Make blocks recompute their activations and compile them, in place: names of their weights stay as they are.

        Called once for each part of this rank, after tensor parallel and before sharding.
        """
        ...


class ParallelModel(Protocol):
    """A model laid out over the ranks; ``core.train.parallel`` makes it. All methods are called on every rank, in step.

    Attributes:
        mesh: Where this rank stands.
        parts: The modules of this rank (several under interleaved pipelines); parameters have the whole model's names.
    """

    mesh: Mesh
    parts: Sequence[nn.Module]

    def forward_backward(self, micro_batches: Sequence[Batch], *, total: float) -> torch.Tensor:
        """Run all passes of a step; gradients (summed over data ranks, divided by ``total``) are left in ``.grad``.

        Args:
            micro_batches: This data rank's, on the CPU.
            total: Counted units of all micro-batches of all data ranks.

        Returns:
            Detached float32 sum of this data rank's losses, the same on all its model ranks.
        """
        ...

    def forward(self, batch: Batch) -> torch.Tensor | None:
        """Return the output for a whole batch without gradients; None where it does not end up (earlier pipeline stages).

        Ranks that share it out (tensor, context) all get the same one: count it on the first of them only.
        """
        ...

    def gradient_norms(self, *, by_block: bool) -> GradientNorms:
        """Return the norms of ``.grad`` as it is now."""
        ...

    def scale_gradients(self, factor: float) -> None:
        """Multiply every gradient of this rank."""
        ...

    def share(self, parameter: nn.Parameter) -> float:
        """Return 1 / (ranks of the run that hold the same elements of this parameter as this rank): the weight in sums."""
        ...

    def sum_over_model(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a value over all ranks of the run.

        A value summed over this rank's own parameters, each times its ``share``, thus counts every weight once.
        """
        ...


class Batches(Protocol):
    """This data rank's micro-batches, without end; ``core.train.data.batches``.

    Every epoch uses each sample once; sample ``i`` of the endless order goes to a step and data rank by ``i`` alone, so
    that the samples of a step do not depend on the number of data ranks. The position is the number of samples used by
    all ranks together.
    """

    last_wait_s: float
    steps_per_epoch: float

    def next_step(self, micro_batches: int) -> list[Batch]:
        """Return this rank's micro-batches of the next step; sets ``last_wait_s``."""
        ...

    def skip(self, micro_batches: int) -> None:
        """Leave out the samples of one step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last ``next_step``: plain values that another number of data ranks can go on from."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position."""
        ...

    def epoch(self) -> float:
        """Return how many epochs have been used."""
        ...

    def close(self) -> None:
        """End the loading processes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the guard sees of a step; every value is the same on every rank.

    Attributes:
        step: Number of the step (the first is 1).
        loss: Mean loss per unit.
        norms: Gradient norms before clipping.
        lr: Learning rate.
        loss_scale: Loss scale; None without one.
        overflowed: fp16: the gradients overflowed, the scaler skips the step and halves the scale.
        step_times_s: Seconds of the previous step by rank, waiting for others left out.
        data_waits_s: Seconds that each rank waited for data in this step.
        update_ratio: Norm of the last update over the norm of the weights; None when not measured.
    """

    step: int
    loss: float
    norms: GradientNorms
    lr: float
    loss_scale: float | None = None
    overflowed: bool = False
    step_times_s: tuple[float, ...] = ()
    data_waits_s: tuple[float, ...] = ()
    update_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with the step that was observed, before its update.

    Attributes:
        action: A ``core.train.specs.stability.Policy``; ``ignore`` takes the step as it is.
        signal: What was seen, such as ``loss_spike``; empty when nothing was.
        reason: A sentence with the figures, for the event and the curve.
        clip_to: For ``clip``: the gradient norm to scale down to.
        notes: Further signals that were only noted: (signal, reason).
    """

    action: str = "ignore"
    signal: str = ""
    reason: str = ""
    clip_to: float | None = None
    notes: tuple[tuple[str, str], ...] = ()


class Guard(Protocol):
    """The stability guard; ``core.train.stability``. Pure: same observations, same decisions, on every rank."""

    def observe(self, seen: Observation) -> Decision:
        """Judge a step before its update is made; one call a step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers, as plain values for a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what was remembered then; the count of actions is never turned back."""
        ...
