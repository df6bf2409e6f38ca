"""Arithmetic of the passes: autocast, dynamic loss scaling, fp8 matrices, recomputation of activations, compilation.

Weights and optimizer stay float32; bf16 and fp16 are autocast types. The loss scale follows Micikevicius et al., "Mixed
Precision Training" (2018): halved when a gradient overflows (that step is skipped), doubled after a run of steps without.
Whether it overflowed is read off the gradient norm over all ranks, so that every rank decides alike however the weights
are sharded; ``torch.amp.GradScaler`` looks at one process only. Clipping is the loop's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.specs.compute import ComputeSpec
from core.train.specs.training import TrainingSpec

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
_BACK_OFF = 0.5
_GROWTH = 2.0
_MAX_SCALE = 2.0**32
# What selective checkpointing keeps: the outputs of matrix products and attention, the dearest to compute again.
_KEPT_OPERATORS = tuple(
    getattr(torch.ops.aten, name).default
    for name in (
        "mm",
        "addmm",
        "bmm",
        "convolution",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)
Log = Callable[[str, str], None]


class LossScaler:
    """The dynamic loss scale. The same on every rank when every rank is told the same.

    Attributes:
        scale: What the loss is multiplied by.
    """

    def __init__(self, spec: ComputeSpec) -> None:
        self.scale = spec.initial_loss_scale
        self._growth_steps = spec.loss_scale_growth_steps
        self._good_steps = 0

    def update(self, *, overflowed: bool) -> None:
        """Halve the scale after an overflow; double it after enough steps without one."""
        if overflowed:
            self.scale *= _BACK_OFF
            self._good_steps = 0
            return
        self._good_steps += 1
        if self._good_steps >= self._growth_steps:
            self.scale = min(self.scale * _GROWTH, _MAX_SCALE)
            self._good_steps = 0

    def state_dict(self) -> dict[str, float]:
        """Return scale and the number of steps since its last change."""
        return {"scale": self.scale, "good_steps": float(self._good_steps)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with a scale."""
        self.scale = state["scale"]
        self._good_steps = int(state["good_steps"])


class _Compiled:
    """A block's forward pass, compiled at the first call; where that fails, as it was, and said once."""

    def __init__(self, eager: Callable[..., Any], switch: _CompileSwitch) -> None:
        self._eager = eager
        self._compiled = torch.compile(eager)
        self._switch = switch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._switch.is_on:
            try:
                return self._compiled(*args, **kwargs)
            except RuntimeError as error:
                if not _is_compilers(error):
                    raise
                self._switch.turn_off(error)
        return self._eager(*args, **kwargs)


def _is_compilers(error: RuntimeError) -> bool:
    """Tell whether the compiler failed, and not the block; by name, since importing the compiler takes seconds."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


class _CompileSwitch:
    """Whether the compiled blocks are used; one for all, so that a failure is said once."""

    def __init__(self, log: Log) -> None:
        self.is_on = True
        self._log = log

    def turn_off(self, error: Exception) -> None:
        self.is_on = False
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        self._log(f"torch.compile failed ({reason[:200]}); the run goes on without it.", "warning")


def _keep_products(context: SelectiveCheckpointContext, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    del context, args, kwargs
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT_OPERATORS else CheckpointPolicy.PREFER_RECOMPUTE


def _recomputed(forward: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Return a forward pass that keeps its inputs only, and, if selective, the outputs of its matrix products."""
    if mode == "full":
        return functools.partial(checkpoint, forward, use_reentrant=False)
    selective = functools.partial(create_selective_checkpoint_contexts, _keep_products)
    return functools.partial(checkpoint, forward, use_reentrant=False, context_fn=selective)


class Arithmetic:
    """Precision and memory of the passes of one run.

    Attributes:
        scaler: The loss scale; None but in fp16.
    """

    def __init__(self, spec: TrainingSpec, device: torch.device, log: Log) -> None:
        self._precision = spec.precision
        self._compute = spec.compute
        self._device = device
        self._log = log
        self.scaler = LossScaler(spec.compute) if spec.precision == "fp16" else None

    def autocast(self) -> torch.autocast:
        """Return the context for forward passes; one that does nothing in fp32 and tf32."""
        dtype = _AUTOCAST.get(self._precision)
        return torch.autocast(self._device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss times the loss scale (fp16), or itself."""
        return loss if self.scaler is None else loss * self.scaler.scale

    def reduce_dtype(self) -> tuple[torch.dtype | None, torch.dtype | None]:
        """Return the types that sharded weights are gathered and gradients reduced in; None: as they are.

        Weights are gathered in the autocast type (half the traffic, and what autocast would make of them); gradients are
        summed in float32. fp16 gathers float32: its norms and biases would lose too much.
        """
        if self._precision in ("bf16", "fp8"):
            return torch.bfloat16, torch.float32
        return None, None

    def prepare(self, blocks: Sequence[nn.Module]) -> None:
        """Make the blocks (layers) recompute activations, use fp8 matrices or compile, as the spec says; names stay.

        To be called before the blocks are wrapped or sharded.
        """
        switch = _CompileSwitch(self._log)
        for block in blocks:
            if self._precision == "fp8":
                from torchao.float8 import convert_to_float8_training

                convert_to_float8_training(block)
            # Setting ``forward`` of the instance, and not wrapping the module, keeps the names of its weights.
            if self._compute.activation_checkpointing != "none":
                block.forward = _recomputed(block.forward, self._compute.activation_checkpointing)
            if self._compute.compile:
                block.forward = _Compiled(block.forward, switch)

    def state_dict(self) -> dict[str, float]:
        """Return the state of the loss scale; empty without one."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with a loss scale, if there is one on both sides."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)


def overflowed(norm: float) -> bool:
    """Tell whether a gradient norm shows that a gradient is infinite or not a number."""
    return not math.isfinite(norm)


def _check(spec: TrainingSpec, device: torch.device) -> None:
    """Refuse what the device cannot do.

    Raises:
        UserError: The precision does not exist on it.
        EnvironmentProblem: torchao is missing.
    """
    if spec.precision not in ("tf32", "fp8"):
        return
    if device.type != "cuda":
        raise UserError(
            f"{spec.precision} needs an NVIDIA GPU, but the run is on {device.type}.", "Choose bf16 or fp32."
        )
    capability = torch.cuda.get_device_capability(device)
    needed = (8, 9) if spec.precision == "fp8" else (8, 0)
    if torch.version.cuda is not None and capability < needed:
        raise UserError(
            f"{torch.cuda.get_device_name(device)} (compute capability {capability[0]}.{capability[1]}) has no "
            f"{spec.precision}; it takes {needed[0]}.{needed[1]} or later.",
            "Choose bf16 or fp16.",
        )
    if spec.precision == "fp8":
        try:
            import torchao.float8  # noqa: F401  # pyright: ignore[reportUnusedImport] - only whether it is there
        except ImportError as error:
            raise EnvironmentProblem("fp8 needs torchao, which is not installed.", "Install torchao.") from error


def make_arithmetic(spec: TrainingSpec, device: torch.device, log: Log) -> Arithmetic:
    """Return the arithmetic of a run, and set this process's matrix products to it; convolutions are made repeatable.

    Args:
        spec: What was asked.
        device: This rank's device.
        log: Writes a sentence and its level into the run's log.

    Raises:
        UserError, EnvironmentProblem: The device or the machine cannot do it.
    """
    _check(spec, device)
    torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
    cudnn = cast("Any", torch.backends.cudnn)
    cudnn.allow_tf32 = spec.precision == "tf32"
    cudnn.deterministic = True
    cudnn.benchmark = False
    return Arithmetic(spec, device, log)
