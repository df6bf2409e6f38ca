"""Tokenizers: bytes, byte-pair encoding trained on the data, or one from a folder or the Hub.

Our own two are ``tokenizers`` pipelines on the byte level, so that every text can be written and what is exported loads
with ``AutoTokenizer``. They know the four special tokens of ChatML chats. Importing this module imports transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from core.contracts.errors import UserError
from core.train.models.shape import SPECIAL_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_END, _PAD, *_TURNS = SPECIAL_TOKENS
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML; the ``generation`` marks tell which tokens are the assistant's."""

_LONGEST = 10**9
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_END,
        pad_token=_PAD,
        additional_special_tokens=_TURNS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=_LONGEST,
    )


def _special() -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer whose token ids are the bytes of UTF-8 (0 to 255), then the special tokens."""
    tokenizer = Tokenizer(models.BPE(vocab={text: byte for byte, text in bytes_to_unicode().items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_special())
    return _wrapped(tokenizer)


def bpe_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019) trained on texts.

    The same texts give the same tokenizer.

    Args:
        texts: Documents.
        vocabulary: Tokens, the 256 bytes and the special ones included; fewer when the texts do not give as many.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=_special(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrapped(tokenizer)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder.

    Raises:
        UserError: There is none, it is damaged, or it needs code of its own or a library that is not here.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The tokenizer in {folder} cannot be loaded: {first}",
            "Use a folder with tokenizer.json, or set model.tokenizer to another one.",
        ) from error


def check_fits(tokenizer: PreTrainedTokenizerBase, rows: int, model: str) -> None:
    """Refuse a tokenizer that can give ids which the model has no embedding for.

    Raises:
        UserError: The tokenizer's vocabulary or a special token lies beyond the model's ``rows``.
    """
    numbers = [*tokenizer.get_vocab().values(), *tokenizer.all_special_ids]
    needed = 1 + max((int(number) for number in numbers), default=-1)
    if needed > rows:
        raise UserError(
            f"The tokenizer gives ids up to {needed - 1:,}, but {model} has embeddings for {rows:,} tokens only.",
            "Use the tokenizer that the model was made with.",
        )


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    described: dict[str, Any] = json.loads(backend.to_str())
    return "ByteLevel" in json.dumps([described.get("decoder"), described.get("pre_tokenizer")])


def token_bytes(tokenizer: PreTrainedTokenizerBase, rows: int) -> NDArray[np.int64]:
    """Return how many bytes of text each token id stands for, shape (rows,); 0 for special tokens and unused rows.

    Exact for byte-level tokenizers and for SentencePiece ones with byte fallback, up to the space that the latter put
    before a text; near for others, whose spaces between words no token carries.
    """
    sizes = np.zeros(rows, dtype=np.int64)
    byte_level = _is_byte_level(tokenizer)
    special = {int(number) for number in tokenizer.all_special_ids}
    for token, number in tokenizer.get_vocab().items():
        if number < rows and number not in special:
            sizes[number] = len(token) if byte_level else _written_bytes(token)
    return sizes


def _written_bytes(token: str) -> int:
    if _BYTE_TOKEN.fullmatch(token):
        return 1
    return len(token.removeprefix("##").replace("▁", " ").encode())
