"""The decoder gives transformers' own logits, whole and in stages, and keeps packed documents apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from core.contracts.errors import UserError
from core.train.parallel.blocks import block_of, find_blocks
from core.train.parallel.build import block_names
from core.train.parallel.context import allowed
from core.train.parallel.decoder import DecoderLM
from core.train.parallel.split import layer_ranges

LENGTH = 12


def small(family: str, **options: object):
    config = AutoConfig.for_model(
        family,
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=32,
        **options,
    )
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 50, (2, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": 5}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
        ("qwen3", {}),
    ],
)
def test_logits_are_those_of_transformers(family: str, options: dict[str, object], tokens: torch.Tensor) -> None:
    causal = small(family, **options)
    expected = causal(input_ids=tokens, use_cache=False).logits
    assert torch.allclose(DecoderLM(causal)(tokens), expected, atol=1e-6)


def test_packed_documents_do_not_see_each_other(tokens: torch.Tensor) -> None:
    decoder = DecoderLM(small("qwen3"))
    cut = 5
    segments = (torch.arange(LENGTH) >= cut).long().expand(2, -1)
    places = torch.cat([torch.arange(cut), torch.arange(LENGTH - cut)]).expand(2, -1)
    packed = decoder(tokens, places, segments)
    assert torch.allclose(packed[:, :cut], decoder(tokens[:, :cut]), atol=1e-6)
    assert torch.allclose(packed[:, cut:], decoder(tokens[:, cut:]), atol=1e-6)


def test_stages_one_after_another_are_the_whole(tokens: torch.Tensor) -> None:
    decoder = DecoderLM(small("llama", tie_word_embeddings=True))
    expected = decoder(tokens)
    ranges = layer_ranges(3, 2)
    stages = [
        decoder.stage(ranges[0], is_first=True, is_last=False),
        decoder.stage(ranges[1], is_first=False, is_last=True),
    ]
    places = torch.arange(LENGTH).expand(2, -1)
    assert torch.equal(stages[1](stages[0](tokens, places), places), expected)
    names = {name for stage in stages for name in stage.state_dict()}
    assert names == set(decoder.state_dict())


def test_other_families_are_refused() -> None:
    with pytest.raises(UserError, match="gpt2 cannot be split"):
        DecoderLM(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=10)))


def test_layers_are_shared_out_evenly() -> None:
    assert [len(part) for part in layer_ranges(7, 3)] == [2, 2, 3]
    assert [number for part in layer_ranges(7, 3) for number in part] == list(range(7))


def test_a_window_and_documents_bound_the_mask() -> None:
    places = torch.arange(4)
    segments = torch.tensor([[0, 0, 1, 1]])
    assert allowed(places, places, None, 2)[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    assert allowed(places, places, segments, None)[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]


def test_blocks_are_found_in_any_network() -> None:
    def block() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    network = nn.ModuleDict(
        {"stem": nn.Linear(2, 2), "body": nn.ModuleList([block(), block()]), "head": nn.Linear(2, 2)}
    )
    blocks = find_blocks(network["body"])
    assert list(blocks) == ["0", "1"]
    names = block_names(DecoderLM(small("llama")))
    assert names["model.layers.2.mlp.up_proj.weight"] == "model.layers.2"
    assert names["lm_head.weight"] == "lm_head"
    assert block_of("scale", {}) == "scale"
