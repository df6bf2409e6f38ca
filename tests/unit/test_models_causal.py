"""Models and tokenizers of language training: built, exported, loaded again, adapted; shapes told without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from core.contracts.errors import UserError
from core.train.models import losses
from core.train.models.adapters import add_adapters, merged_weights, save_adapters
from core.train.models.causal import load_causal, new_causal, new_config
from core.train.models.causal_flops import training_flops
from core.train.models.export_hf import model_around, save_model
from core.train.models.family import PlainCausal, check_packing
from core.train.models.generate import continue_text
from core.train.models.huggingface import count_parameters, read_config, token_count
from core.train.models.losses import count_correct, summed_cross_entropy
from core.train.models.shape import BYTE_TOKENS, ModelShape, config_of_new, shape_of_config, with_adapters
from core.train.models.tokenizer import (
    bpe_tokenizer,
    byte_tokenizer,
    check_fits,
    load_tokenizer,
    token_bytes,
)
from core.train.specs.adapter import AdapterSpec
from core.train.specs.generation import GenerationSpec
from core.train.specs.model import ModelSpec

TEXT = "Grüße, 世界!\n\tdef f(x):  return x<|end|>"
SMALL = ModelSpec(layers=2, hidden=32, heads=4, key_value_heads=2, context=32)


def small(spec: ModelSpec = SMALL, seed: int = 0) -> torch.nn.Module:
    return new_causal(new_config(spec, byte_tokenizer()), seed).eval()


def logits_of(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens).logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, small(), byte_tokenizer())
    return folder


def test_bytes_are_tokens_and_every_text_comes_back() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer(TEXT)["input_ids"]
    assert ids == [*TEXT.removesuffix("<|end|>").encode(), 256]
    assert tokenizer.decode(ids) == TEXT
    assert len(tokenizer) == BYTE_TOKENS


def test_a_trained_encoding_is_repeatable_shorter_than_bytes_and_loses_nothing() -> None:
    texts = ["the quick brown fox jumps over the lazy dog. " * 20, "Grüße an den Fuchs. " * 30]
    first, second = bpe_tokenizer(iter(texts), 512), bpe_tokenizer(iter(texts), 512)
    assert first.get_vocab() == second.get_vocab()
    ids = first(TEXT)["input_ids"]
    assert first.decode(ids) == TEXT
    assert len(first("the quick brown fox")["input_ids"]) < 8
    assert 260 < len(first) <= 512


@pytest.mark.parametrize("encoding", ["bytes", "bpe"])
def test_the_bytes_of_tokens_add_up_to_those_of_the_text(encoding: str) -> None:
    tokenizer = byte_tokenizer() if encoding == "bytes" else bpe_tokenizer([TEXT * 30], 400)
    sizes = token_bytes(tokenizer, 512)
    assert sum(int(sizes[number]) for number in tokenizer(TEXT)["input_ids"]) == len(
        TEXT.removesuffix("<|end|>").encode()
    )


def test_what_is_exported_loads_with_transformers_and_gives_the_same_logits(exported: Path) -> None:
    tokens = torch.randint(0, 256, (2, 16))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    assert torch.equal(logits_of(model, tokens), logits_of(small(), tokens))
    assert tokenizer(TEXT)["input_ids"] == byte_tokenizer()(TEXT)["input_ids"]
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id == 256
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert type(load_tokenizer(exported)) is type(tokenizer)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_used_as_they_are_without_a_copy(tied: bool) -> None:
    source = small(msgspec.structs.replace(SMALL, tied=tied))
    weights = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    if tied:
        weights.pop("lm_head.weight", None)
    model = model_around(source.config, weights)
    tokens = torch.randint(0, 256, (1, 9))
    assert torch.equal(logits_of(model, tokens), logits_of(source, tokens))
    assert model.model.embed_tokens.weight.data_ptr() == weights["model.embed_tokens.weight"].data_ptr()
    weights.pop("model.norm.weight")
    with pytest.raises(UserError, match="are missing, such as"):
        model_around(source.config, weights)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_shapes_count_the_weights_that_transformers_makes(architecture: str, tied: bool, tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SMALL, architecture=architecture, tied=tied)
    model = small(spec)
    told = shape_of_config(config_of_new(spec, BYTE_TOKENS))
    assert told.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (told.vocabulary, told.is_splittable, told.key_value_heads) == (264, True, 2)
    save_model(tmp_path, model, byte_tokenizer())
    assert shape_of_config(read_config(tmp_path)) == told
    assert count_parameters(tmp_path) == told.parameters
    assert token_count(tmp_path) == BYTE_TOKENS


def test_the_seed_fixes_the_weights_and_the_global_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    first, again, other = small(seed=1), small(seed=1), small(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_adapters_change_nothing_at_first_and_load_with_peft_once_trained(
    mode: str, exported: Path, tmp_path: Path
) -> None:
    spec = AdapterSpec(mode=mode, rank=4, alpha=8, targets="all-linear")
    base = load_causal(exported, four_bit=mode == "qlora").eval()
    tokens = torch.randint(0, 256, (2, 12))
    before = logits_of(base, tokens)
    config = add_adapters(base, spec, seed=3)
    assert torch.equal(logits_of(base, tokens), before)
    trained = {name: p for name, p in base.named_parameters() if p.requires_grad}
    shape = with_adapters(shape_of_config(read_config(exported)), read_config(exported), spec)
    assert sum(p.numel() for p in trained.values()) == shape.trained_parameters
    optimizer = torch.optim.SGD(trained.values(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(base(input_ids=tokens).logits.flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
    after = logits_of(base, tokens)
    assert not torch.allclose(after, before, atol=1e-3)
    save_adapters(tmp_path, base.state_dict(), config, str(exported))
    plain = load_causal(exported, four_bit=mode == "qlora").eval()
    assert torch.allclose(logits_of(PeftModel.from_pretrained(plain, tmp_path), tokens), after, atol=1e-6)
    whole = load_causal(exported)
    add_adapters(whole, spec, seed=3)
    whole.load_state_dict({name: t for name, t in base.state_dict().items() if ".lora_" in name}, strict=False)
    expected = logits_of(whole.eval(), tokens)
    merged = model_around(whole.config, merged_weights(whole))
    assert torch.allclose(logits_of(merged, tokens), expected, atol=1e-5)


def test_adapters_for_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="No adapters can be put"):
        add_adapters(small(), AdapterSpec(mode="lora", targets="query"), seed=0)


def test_chunked_loss_and_its_gradient_equal_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(2, 7, 11, requires_grad=True)
    labels = torch.randint(0, 11, (2, 7))
    labels[0, :3] = -100
    plain = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    (expected,) = torch.autograd.grad(plain, logits)
    monkeypatch.setattr(losses, "_LARGEST_PIECE", 33)
    chunked = summed_cross_entropy(logits, labels)
    (found,) = torch.autograd.grad(chunked, logits)
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(found, expected)
    best = logits.argmax(-1)
    assert count_correct(logits, torch.where(labels == -100, labels, best)) == 11


def test_samples_go_on_beyond_the_context_and_are_repeatable() -> None:
    model, tokenizer = small(), byte_tokenizer()
    asked = GenerationSpec(prompt="abc", new_tokens=60, temperature=1.0)
    drawn = [continue_text(model, tokenizer, asked, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0].startswith("abc")
    greedy = msgspec.structs.replace(asked, new_tokens=5, temperature=0.0)
    assert len({continue_text(model, tokenizer, greedy, seed=seed) for seed in (1, 2)}) == 1
    assert not continue_text(model, tokenizer, greedy, seed=0, is_chat=True).startswith("abc")


def test_a_tokenizer_larger_than_the_model_is_refused() -> None:
    check_fits(byte_tokenizer(), 264, "the model")
    with pytest.raises(UserError, match="ids up to 259, but the model has embeddings for 128"):
        check_fits(byte_tokenizer(), 128, "the model")


def test_other_architectures_keep_packed_documents_apart_or_are_refused() -> None:
    config = GPT2Config(
        vocab_size=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,
    )
    model = PlainCausal(GPT2LMHeadModel(config))
    check_packing(model, 64, "gpt2")

    class Mixing(PlainCausal):
        def forward(self, input_ids, position_ids=None, segment_ids=None):
            return super().forward(input_ids)

    with pytest.raises(UserError, match="does not keep packed documents apart"):
        check_packing(Mixing(model.causal), 64, "gpt2")


def test_flops_of_full_training_are_six_per_weight_and_of_adapters_less() -> None:
    shape = ModelShape(family="llama", parameters=1000, trained_parameters=1000, layers=2, hidden=8, tied=True)
    assert training_flops(shape, 10, 4) == 10 * (6 * 1000 + 12 * 2 * 8 * 4)
    adapted = ModelShape(family="llama", parameters=1000, trained_parameters=10, layers=2, hidden=8, tied=True)
    assert training_flops(adapted, 10, 4) == 10 * (4 * 1000 + 2 * 10 + 12 * 2 * 8 * 4)


def test_shapes_and_files_are_read_without_heavy_libraries(exported: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path;"
        "from core.train.models.huggingface import *; from core.train.models.shape import *;"
        f"print(json.dumps([shape_of_config(read_config(Path({str(exported)!r}))).hidden,"
        "[m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [32, []]
