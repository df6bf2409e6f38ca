"""Proves a layout: 20 steps of a small Llama must have the losses and gradient norms of one process.

The reference is written by hand with transformers' own model, mask and loop: it shares no code with the layouts. The data
has unequal counts of labels per micro-batch, so that a mean in the wrong place is seen. Importing this module imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from core.train.engine.contracts import Batch, Mesh, ParallelModel
from core.train.parallel.build import parallelize
from core.train.parallel.cases import CASES, REFUSED, STEP_SAMPLES, LayoutCase
from core.train.parallel.decoder import DecoderLM
from core.train.parallel.mesh import build_mesh
from core.train.specs.training import TrainingSpec

STEPS = 20
_FINER_STEPS = 5
TOLERANCE = 1e-5
_NORM_TOLERANCE = 1e-4
_LENGTH = 16
_VOCABULARY = 64
_SEED = 20
_IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a training left behind.

    Attributes:
        losses: Mean loss per label of each step, and at the end that of samples without gradients.
        norms: Gradient norm of each step.
        keys: Names in a checkpoint of the weights.
    """

    losses: list[float]
    norms: list[float]
    keys: set[str]


class SmallSpec(TrainingSpec, frozen=True, kw_only=True, tag="check-layouts"):
    """A spec without a model and data of its own."""


class PlainArithmetic:
    """fp32."""

    def autocast(self) -> torch.autocast:
        """Return a context that does nothing."""
        return torch.autocast("cpu", enabled=False)

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss itself."""
        return loss

    def reduce_dtype(self) -> tuple[None, None]:
        """Leave types as they are."""
        return None, None

    def prepare(self, blocks: Sequence[nn.Module]) -> None:
        """Leave blocks as they are."""
        del blocks


class NextToken:
    """The passes of a causal language model; what else a task has is not asked for here."""

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return logits (batch, length, vocabulary)."""
        return model(batch["input_ids"], position_ids=batch.get("position_ids"), segment_ids=batch.get("segment_ids"))

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of the cross-entropies over the labels that count."""
        return functional.cross_entropy(
            output.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=_IGNORED, reduction="sum"
        )


def small_causal(*, tied: bool, layers: int = 4) -> LlamaForCausalLM:
    """Return the model: 4 heads on 2 key-value heads, the same weights on every rank."""
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_LENGTH,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = LlamaForCausalLM(config)
        # Wider than usual, so that wrong gradients show in the losses of a few steps.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.1)
    return model


def step_samples(step: int, *, packed: bool) -> Batch:
    """Return the samples of a step, (16, 16): a different share of labels counts in each, some rows hold two documents."""
    generator = torch.Generator().manual_seed(_SEED + step)
    tokens = torch.randint(0, _VOCABULARY, (STEP_SAMPLES, _LENGTH + 1), generator=generator)
    # A sequence that can be learned in part: every other token follows from the one before.
    tokens[:, 1::2] = (tokens[:, 0:-1:2] * 7 + 3) % _VOCABULARY
    labels = tokens[:, 1:].clone()
    counted = torch.randint(1, _LENGTH + 1, (STEP_SAMPLES, 1), generator=generator)
    labels[torch.arange(_LENGTH)[None] >= counted] = _IGNORED
    batch = {"input_ids": tokens[:, :-1].contiguous(), "labels": labels}
    if packed:
        cut = torch.randint(2, _LENGTH - 2, (STEP_SAMPLES, 1), generator=generator)
        place = torch.arange(_LENGTH)[None].expand(STEP_SAMPLES, -1)
        batch["segment_ids"] = (place >= cut).long()
        batch["position_ids"] = torch.where(place >= cut, place - cut, place)
    return batch


def micro_batches(samples: Batch, mesh: Mesh, amount: int) -> list[Batch]:
    """Return the micro-batches of a data rank."""
    mine = slice(mesh.data_rank * amount, (mesh.data_rank + 1) * amount)
    pieces = {key: tensor.chunk(mesh.data_size * amount)[mine] for key, tensor in samples.items()}
    return [{key: pieces[key][number] for key in pieces} for number in range(amount)]


def reference(*, tied: bool, packed: bool, layers: int) -> Trace:
    """Train in this process with transformers' model and a plain loop."""
    model = small_causal(tied=tied, layers=layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    losses, norms = [], []
    for step in range(STEPS):
        samples = step_samples(step, packed=packed)
        loss = _reference_loss(model, samples)
        loss.backward()
        squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
        losses.append(float(loss))
        norms.append(math.sqrt(float(torch.stack(squares).sum())))
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        losses += [float(_reference_loss(model, step_samples(STEPS, packed=packed)))] * 2
    return Trace(losses=losses, norms=norms, keys=set(model.state_dict()))


def _reference_loss(model: LlamaForCausalLM, samples: Batch) -> torch.Tensor:
    mask = torch.ones(_LENGTH, _LENGTH, dtype=torch.bool).tril()[None, None]
    if "segment_ids" in samples:
        segments = samples["segment_ids"]
        mask = mask & (segments[:, None, :, None] == segments[:, None, None, :])
    logits = model(
        input_ids=samples["input_ids"], attention_mask=mask, position_ids=samples.get("position_ids"), use_cache=False
    ).logits
    return functional.cross_entropy(logits.flatten(0, 1), samples["labels"].flatten(), ignore_index=_IGNORED)


def train_laid_out(case: LayoutCase, device: str) -> Trace:
    """Train over the ranks of the process group; every rank calls it."""
    spec = SmallSpec(parallel=case.parallel, device=device)  # pyright: ignore[reportArgumentType] one of the literals
    mesh = build_mesh(spec)
    laid = parallelize(
        DecoderLM(small_causal(tied=case.tied, layers=case.layers)), NextToken(), mesh, spec, PlainArithmetic()
    )
    parameters = list(dict.fromkeys(p for part in laid.parts for p in part.parameters()))
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1)
    losses, norms = [], []
    for step in range(STEPS):
        samples = step_samples(step, packed=case.packed)
        total = float((samples["labels"] != _IGNORED).sum())
        # More and smaller micro-batches at the end, as when accumulation is raised in mid-run: the same samples.
        amount = case.micro_batches * (2 if step >= STEPS - _FINER_STEPS else 1)
        loss = laid.forward_backward(micro_batches(samples, mesh, amount), total=total)
        losses.append(_mean_loss(loss, total, mesh))
        norms.append(laid.gradient_norms(by_block=False).total)
        optimizer.step()
        optimizer.zero_grad()
    losses += _evaluated(laid, step_samples(STEPS, packed=case.packed))
    return Trace(losses=losses, norms=norms, keys=_all_keys(laid))


def _evaluated(laid: ParallelModel, samples: Batch) -> list[float]:
    """Return the least and the greatest of the losses that the ranks with an output find."""
    output = laid.forward(samples)
    total = float((samples["labels"] != _IGNORED).sum())
    labels = {"labels": samples["labels"].to(laid.mesh.device)}
    mine = [] if output is None else [float(NextToken().loss(output, labels)) / total]
    if not laid.mesh.is_distributed:
        return mine * 2
    found: list[Any] = [None] * laid.mesh.world
    dist.all_gather_object(found, mine)
    values = [value for rank in found for value in rank]
    return [min(values), max(values)]


def _mean_loss(loss_sum: torch.Tensor, total: float, mesh: Mesh) -> float:
    """Every rank of a data rank's model has its sum: add all up and divide by how many have each."""
    if not mesh.is_distributed:
        return float(loss_sum) / total
    dist.all_reduce(loss_sum)
    return float(loss_sum) / total / (mesh.world // mesh.data_size)


def _all_keys(laid: ParallelModel) -> set[str]:
    mine = {key for part in laid.parts for key in get_model_state_dict(part)}
    if not laid.mesh.is_distributed:
        return mine
    found: list[Any] = [None] * laid.mesh.world
    dist.all_gather_object(found, mine)
    return set().union(*found)


def prove(names: Sequence[str], device: str) -> list[dict[str, Any]]:
    """Prove layouts of one number of ranks; every rank calls it, under the environment of torchrun.

    Returns:
        A row for each: name, processes, max_loss_diff and max_norm_diff (relative, the largest over the steps), ok, note.
    """
    rows = []
    references: dict[tuple[bool, bool, int], Trace] = {}
    for name in names:
        case = CASES.get(name) or REFUSED[name]
        kind = (case.tied, case.packed, case.layers)
        if kind not in references:
            references[kind] = reference(tied=case.tied, packed=case.packed, layers=case.layers)
        rows.append(_row(case, references[kind], train_laid_out(case, device)))
    return rows


def _row(case: LayoutCase, expected: Trace, found: Trace) -> dict[str, Any]:
    losses, norms = _difference(expected.losses, found.losses), _difference(expected.norms, found.norms)
    notes = [case.note] if case.note else []
    if losses > TOLERANCE:
        notes.append("losses differ")
    if norms > _NORM_TOLERANCE:
        notes.append(f"gradient norms differ by {norms:.1e}")
    if expected.keys != found.keys:
        notes.append(f"checkpoint names differ: {sorted(expected.keys ^ found.keys)[:3]}")
    return {
        "name": case.name,
        "processes": case.parallel.processes,
        "max_loss_diff": losses,
        "max_norm_diff": norms,
        "ok": losses <= TOLERANCE and norms <= _NORM_TOLERANCE and expected.keys == found.keys,
        "note": "; ".join(notes),
    }


def _difference(expected: Sequence[float], found: Sequence[float]) -> float:
    """Return the largest relative difference; infinite where one is not a number."""
    pairs = list(zip(expected, found, strict=True))
    if not all(math.isfinite(value) for pair in pairs for value in pair):
        return math.inf
    return max(abs(a - b) / abs(a) for a, b in pairs)
