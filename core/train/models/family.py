"""Causal language models of any architecture as the engine wants them: one document must not look at another.

The Llama family has ``core.train.parallel.decoder.DecoderLM``, which knows every layout. Other architectures are wrapped
here and train on data ranks only; whether their attention keeps packed documents apart is tried, not assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from core.contracts.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOLERANCE = 1e-4
"""Of the largest logit; float32 sums in another order differ far less."""


def document_mask(segment_ids: torch.Tensor) -> torch.Tensor:
    """Return which position may look at which: bool (batch, 1, length, length), causal and within a document."""
    length = segment_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()
    return (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None] & causal


class PlainCausal(nn.Module):
    """A transformers model whose forward takes what ``DecoderLM``'s does. Parameters keep their names below ``causal``.

    Attributes:
        causal: The model.
    """

    def __init__(self, causal: PreTrainedModel) -> None:
        super().__init__()
        self.causal = causal

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits (batch, length, vocabulary).

        Args:
            input_ids: int64 (batch, length).
            position_ids: int64 (batch, length), starting anew at each document.
            segment_ids: int64 (batch, length), the same number within a document; None: one document a row.
        """
        mask = None if segment_ids is None else document_mask(segment_ids)
        return self.causal(input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False).logits


@torch.no_grad()
def check_packing(model: nn.Module, vocabulary: int, family: str) -> None:
    """Try whether a document in a packed row gives the same logits as alone.

    Raises:
        UserError: It does not; packing would train on a mixture of documents.
    """
    was_training = model.training
    model.eval()
    try:
        first, second = (torch.arange(start, start + 4)[None] % vocabulary for start in (1, 7))
        alone = model(second, torch.arange(4)[None])
        packed = model(
            torch.cat((first, second), 1), torch.arange(4).repeat(2)[None], torch.tensor([[0] * 4 + [1] * 4])
        )
        is_apart = bool((packed[:, 4:] - alone).abs().max() <= _TOLERANCE * alone.abs().max())
    except (TypeError, ValueError, RuntimeError, IndexError):
        is_apart = False
    finally:
        model.train(was_training)
    if not is_apart:
        raise UserError(
            f"The attention of {family} models does not keep packed documents apart.", "Turn packing off in the data."
        )
