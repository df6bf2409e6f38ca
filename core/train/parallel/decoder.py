"""A causal language model of the Llama family, whole or a stage of a pipeline, with the layers of transformers.

Only the way from tokens to logits is written here, so that packed documents stay apart, a pipeline can cut it between
layers, and sequences can be shared out over ranks. Layers, weights and their names are transformers' own
(``model.layers.0.self_attn.q_proj.weight``, ``lm_head.weight``). Importing this module imports torch and transformers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from core.contracts.errors import UserError
from core.train.parallel.context import ATTENTION, allowed, attention_options, make_plan
from core.train.parallel.context_split import ContextSplit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the architectures whose layers are known."""


class DecoderLM(nn.Module):
    """Tokens to logits, or a part of the way.

    Attributes:
        uses_all_weights: No pass leaves a weight out, so nobody has to look for such.
        model: Holds ``embed_tokens``, ``layers``, ``norm`` and ``rotary_emb``, or what the part needs of them.
        lm_head: The output layer; a stage but the last has none.
        is_first: Takes tokens; other stages take the residual stream (batch, length, width).
        is_last: Gives logits; other stages give the residual stream.
        context: Set where ranks share each sequence; inputs are then this rank's slices.
        origin: The transformers model that it was made of; empty for a stage.
        autocast: Returns the context that the pass is computed in; for stages, whose caller has none.
    """

    uses_all_weights = True

    def __init__(self, causal: PreTrainedModel) -> None:
        """Take a model; its attention is set to torch's scaled dot product.

        Raises:
            UserError: It is of another family.
        """
        super().__init__()
        self.config: Any = causal.config
        if self.config.model_type not in FAMILIES:
            raise UserError(
                f"Models of the family {self.config.model_type} cannot be split over ranks.",
                f"Choose one of {', '.join(FAMILIES)}, or a layout with data ranks only.",
            )
        whole: Any = causal
        whole.set_attn_implementation("sdpa")
        self.model: nn.Module = whole.model
        self.lm_head: nn.Module | None = whole.lm_head
        self.is_first = self.is_last = True
        self.context: ContextSplit | None = None
        self.autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        # In a tuple, so that its weights are not registered a second time.
        self.origin: tuple[PreTrainedModel, ...] = (causal,)
        self.numbers = list(range(self.config.num_hidden_layers))

    @property
    def causal(self) -> PreTrainedModel:
        """The transformers model with the same weights, for generation and export; a stage has none."""
        return self.origin[0]

    @property
    def is_tied(self) -> bool:
        """True when input and output embedding are one weight."""
        return bool(self.config.tie_word_embeddings)

    def layers(self) -> list[tuple[int, nn.Module]]:
        """Return the layers held here with their numbers in the whole model."""
        held = cast("nn.ModuleList | nn.ModuleDict", self.model.layers)
        modules = held.values() if isinstance(held, nn.ModuleDict) else held
        return list(zip(self.numbers, modules, strict=True))

    def share_sequences(self, context: ContextSplit) -> None:
        """Take slices of sequences from now on."""
        self.context = context
        self.causal.set_attn_implementation(ATTENTION)

    def stage(self, numbers: range, *, is_first: bool, is_last: bool) -> DecoderLM:
        """Return a stage that holds some of the layers (the same modules), with the whole model's names.

        The last stage of a model with tied embeddings holds the input embedding too, as the weight of its output.
        """
        part = DecoderLM.__new__(DecoderLM)
        nn.Module.__init__(part)
        part.config, part.context, part.autocast, part.origin = self.config, self.context, self.autocast, ()
        part.is_first, part.is_last, part.numbers = is_first, is_last, list(numbers)
        body: Any = nn.Module()
        if is_first or (is_last and self.is_tied):
            body.embed_tokens = self.model.embed_tokens
        layers = dict(self.layers())
        body.layers = nn.ModuleDict({str(number): layers[number] for number in numbers})
        if is_last:
            body.norm = self.model.norm
        body.rotary_emb = self.model.rotary_emb
        part.model, part.lm_head = body, self.lm_head if is_last else None
        return part

    def forward(
        self,
        inputs: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits (batch, length, vocabulary); a stage but the last returns the residual stream.

        Args:
            inputs: Tokens, int64 (batch, length); for a stage but the first the residual stream. Under context parallel
                ``length`` is this rank's slices; under sequence parallel the residual stream is cut once more.
            position_ids: int64 (batch, length), starting anew at each document; needed by stages but the
                first; None: counted from the beginning of the row.
            segment_ids: int64 (batch, length): attention stays within the same number; None: one document a row.
        """
        body: Any = self.model
        with self.autocast():
            hidden = body.embed_tokens(inputs) if self.is_first else inputs
            if position_ids is None:
                position_ids = self._places(inputs)
            hidden = self._through_layers(hidden, position_ids, segment_ids)
            if not self.is_last:
                return hidden
            assert self.lm_head is not None
            return self.lm_head(body.norm(hidden))

    def _places(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return where the tokens stand in their rows, (1, length)."""
        length = tokens.shape[1]
        if self.context is None:
            return torch.arange(length, device=tokens.device)[None]
        return self.context.places(length * self.context.size)[None].to(tokens.device)

    def _through_layers(
        self, hidden: torch.Tensor, position_ids: torch.Tensor, segment_ids: torch.Tensor | None
    ) -> torch.Tensor:
        length = position_ids.shape[1]
        plan = None
        if self.context is not None:
            plan = make_plan(self.context, segment_ids, length * self.context.size, hidden.device)
        rotary: Any = self.model.rotary_emb
        rotations = rotary(hidden, position_ids=position_ids)
        masks: dict[int | None, torch.Tensor | None] = {}
        for number, layer in self.layers():
            window = self._window(number, length * (1 if self.context is None else self.context.size))
            if window not in masks:
                masks[window] = None if plan is not None else _mask(hidden.device, length, segment_ids, window)
            hidden = layer(
                hidden,
                attention_mask=masks[window],
                position_ids=position_ids,
                position_embeddings=rotations,
                **attention_options(plan, window),
            )
        return hidden

    def _window(self, number: int, length: int) -> int | None:
        """Return how far back a layer looks; None when that is the whole row."""
        window: int | None = getattr(self.config, "sliding_window", None)
        kinds: list[str] | None = getattr(self.config, "layer_types", None)
        is_sliding = kinds is None or kinds[number] == "sliding_attention"
        return window if window is not None and window < length and is_sliding else None


def _mask(
    device: torch.device, length: int, segment_ids: torch.Tensor | None, window: int | None
) -> torch.Tensor | None:
    """Return the mask of whole rows; None where plain causal attention does."""
    if segment_ids is None and window is None:
        return None
    places = torch.arange(length, device=device)
    return allowed(places, places, segment_ids, window)
