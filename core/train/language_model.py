"""A small causal language model over bytes, in the Llama layout: RMSNorm, rotary positions, SwiGLU, tied embeddings.

Bytes need no tokenizer file, cover every text, and make ``bits per byte`` comparable between any two models.
Importing this module imports torch; only worker code may do so.
"""

from __future__ import annotations

import msgspec
import torch
from torch import nn
from torch.nn import functional

VOCABULARY = 256
MODEL_FORMAT = "pilothouse.byte-language-model"


class LanguageModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Architecture of a ``LanguageModel``; ``hidden`` is a multiple of ``2 * num_heads``."""

    num_layers: int
    num_heads: int
    hidden: int
    context_bytes: int
    rope_theta: float = 10_000.0
    format: str = MODEL_FORMAT
    version: int = 1


def _rotary_tables(config: LanguageModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines of rotary position embedding (Su et al., 2021), shape (context, head size / 2)."""
    half = config.hidden // config.num_heads // 2
    frequencies = config.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.outer(torch.arange(config.context_bytes, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def _rotate(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1).to(heads.dtype)


class _Layer(nn.Module):
    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        inner = 64 * max(1, round(config.hidden * 8 / 3 / 64))
        self.attention_norm = nn.RMSNorm(config.hidden, eps=1e-6)
        self.query_key_value = nn.Linear(config.hidden, 3 * config.hidden, bias=False)
        self.attention_out = nn.Linear(config.hidden, config.hidden, bias=False)
        self.feed_norm = nn.RMSNorm(config.hidden, eps=1e-6)
        self.gate_up = nn.Linear(config.hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, config.hidden, bias=False)

    def forward(self, hidden: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        batch, length, width = hidden.shape
        packed = self.query_key_value(self.attention_norm(hidden))
        query, key, value = packed.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            _rotate(query, cosines, sines), _rotate(key, cosines, sines), value, is_causal=True
        )
        hidden = hidden + self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(self.feed_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(functional.silu(gate) * up)


class LanguageModel(nn.Module):
    """Takes bytes, int64, shape (batch, length <= context); gives logits of the next byte, shape (batch, length, 256)."""

    cosines: torch.Tensor
    sines: torch.Tensor

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(VOCABULARY, config.hidden)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden, eps=1e-6)
        cosines, sines = _rotary_tables(config)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Draw weights as GPT-2 does: normal(0.02), outputs of each layer scaled by depth."""
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                is_output = name.endswith(("attention_out.weight", "down.weight"))
                deviation = 0.02 / (2 * self.config.num_layers) ** 0.5 if is_output else 0.02
                nn.init.normal_(parameter, std=deviation)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        length = text.shape[1]
        hidden = self.embedding(text)
        for layer in self.layers:
            hidden = layer(hidden, self.cosines[:length], self.sines[:length])
        return functional.linear(self.norm(hidden), self.embedding.weight)


@torch.inference_mode()
def generate(model: LanguageModel, prompt: bytes, length: int, *, temperature: float, seed: int) -> bytes:
    """Return ``prompt`` and ``length`` bytes that the model continues it with, drawn at ``temperature``."""
    device = model.embedding.weight.device
    generator = torch.Generator().manual_seed(seed)
    text = list(prompt)
    for _ in range(length):
        window = torch.tensor([text[-model.config.context_bytes :]], device=device)
        logits = model(window)[0, -1].float().cpu() / temperature
        text.append(int(torch.multinomial(logits.softmax(0), 1, generator=generator)))
    return bytes(text)
