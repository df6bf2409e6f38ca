"""Lets a causal language model continue a prompt, with a cache of keys and values (transformers' ``generate``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from core.train.specs.generation import GenerationSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FALLBACK_CONTEXT = 1024


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, *, is_chat: bool) -> list[int]:
    if is_chat and tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(prompt)["input_ids"])


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
    context = int(getattr(model.config, "max_position_embeddings", 0) or _FALLBACK_CONTEXT)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        while len(ids) < wanted:
            window = ids[-max(1, min(len(ids), context // 2)) :]
            drawn = _draw(
                model, tokenizer, window, min(wanted - len(ids), max(1, context - len(window))), asked.temperature
            )
            ids += drawn
            if not drawn or drawn[-1] == tokenizer.eos_token_id:
                break
    return str(tokenizer.decode(ids[begin if is_chat else 0 :], skip_special_tokens=True))


def _draw(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, window: list[int], amount: int, temperature: float
) -> list[int]:
    device = next(model.parameters()).device
    draw = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature > 0
        else {"do_sample": False}
    )
    prompt = torch.tensor([window], device=device)
    generate = cast("Callable[..., torch.Tensor]", model.generate)
    answer = generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=amount,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=True,
        **draw,
    )
    return [int(number) for number in answer[0, len(window) :]]
