"""Lets a causal language model continue a prompt, with a cache of keys and values (transformers' ``generate``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from transformers import GenerationConfig

from core.train.specs.generation import GenerationSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FALLBACK_CONTEXT = 1024
_ANSWER = "answer"


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, *, is_chat: bool) -> list[int]:
    if is_chat and tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(prompt)["input_ids"])


def stop_tokens(tokenizer: PreTrainedTokenizerBase, *, is_chat: bool) -> list[int]:
    """Return the tokens that end a text: the tokenizer's end token, and in chats the one its template ends a turn with."""
    found = [tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else []
    if is_chat and tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
        rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
        after = tokenizer(rendered.rpartition(_ANSWER)[2], add_special_tokens=False)["input_ids"]
        found += [number for number in after[:1] if number in tokenizer.all_special_ids and number not in found]
    return found


@torch.no_grad()
def continue_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: GenerationSpec,
    *,
    seed: int,
    is_chat: bool = False,
) -> str:
    """Return the prompt and what the model continues it with; the answer alone in a chat.

    Beyond the model's context the text goes on from its last half. The global random state is left as it was.

    Args:
        model: In evaluation mode.
        tokenizer: The model's.
        asked: Prompt (of a chat the user's turn), tokens to draw at most (it ends at the tokenizer's end token), temperature.
        seed: Fixes the draw.
        is_chat: Put the prompt into the tokenizer's chat template.
    """
    device = next(model.parameters()).device
    ids = _prompt_ids(tokenizer, asked.prompt, is_chat=is_chat)
    if not ids:
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        ids = [first if isinstance(first, int) else 0]
    begin, wanted = len(ids), len(ids) + asked.new_tokens
    context = max(2, int(getattr(model.config, "max_position_embeddings", 0) or _FALLBACK_CONTEXT))
    stops = stop_tokens(tokenizer, is_chat=is_chat)
    settings = generation_settings(tokenizer, stops)
    settings.update(do_sample=asked.temperature > 0, use_cache=True)
    if asked.temperature > 0:
        settings.update(temperature=asked.temperature, top_k=0, top_p=1.0)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        while len(ids) < wanted:
            window = ids if len(ids) < context else ids[-(context // 2) :]
            drawn = _draw(model, window, min(wanted - len(ids), context - len(window)), settings)
            ids = ids + drawn
            if not drawn or drawn[-1] in stops:
                break
    return str(tokenizer.decode(ids[begin if is_chat else 0 :], skip_special_tokens=True))


def generation_settings(tokenizer: PreTrainedTokenizerBase, stops: list[int]) -> GenerationConfig:
    """Return the settings for generation that belong to a tokenizer: what ends a text, what fills rows up."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return GenerationConfig(
        eos_token_id=stops[0] if len(stops) == 1 else stops or None,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=pad,
    )


def _draw(model: PreTrainedModel, window: list[int], amount: int, settings: GenerationConfig) -> list[int]:
    prompt = torch.tensor([window], device=next(model.parameters()).device)
    generate = cast("Callable[..., torch.Tensor]", model.generate)
    settings.update(max_new_tokens=amount)
    answer = generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    return [int(number) for number in answer[0, len(window) :]]
