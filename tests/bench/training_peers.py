"""The peers of ``bench_training``: a minimal hand-written PyTorch loop and Hugging Face's Trainer on the same small Llama.

``python -m tests.bench.training_peers loop|trainer|padded TEXT SETTINGS`` trains on the bytes of a file and prints one JSON line:
tokens per second of wall and of processor time after the warm-up steps, counted tokens only. It uses nothing of ours.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

SPECIAL_TOKENS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all contenders share."""

    layers: int
    hidden: int
    heads: int
    context: int
    micro_batch: int
    steps: int
    warmup_steps: int
    lr: float = 1e-3


def _model(settings: Settings) -> LlamaForCausalLM:
    set_seed(0)
    inner = 64 * max(1, round(settings.hidden * 8 / 3 / 64))
    config = LlamaConfig(
        vocab_size=256 + SPECIAL_TOKENS,
        hidden_size=settings.hidden,
        intermediate_size=inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def _rows(text: Path, context: int) -> torch.Tensor:
    tokens = np.frombuffer(text.read_bytes(), dtype=np.uint8).astype(np.int64)
    rows = len(tokens) // context
    return torch.from_numpy(tokens[: rows * context].reshape(rows, context).copy())


def _documents(text: Path, context: int) -> list[torch.Tensor]:
    """Return one tensor of bytes for each line of a JSONL file of documents, cut at the context."""
    lines = text.read_text(encoding="utf-8").splitlines()
    return [torch.tensor(list(json.loads(line)["text"].encode())[:context]) for line in lines]


Seconds = tuple[float, float]
"""Wall and processor seconds."""


def _now() -> Seconds:
    return time.perf_counter(), time.process_time()


def _rates(tokens: float, began: Seconds, ended: Seconds) -> dict[str, float]:
    return {"tokens_per_s": tokens / (ended[0] - began[0]), "tokens_per_cpu_s": tokens / (ended[1] - began[1])}


def minimal_loop(text: Path, settings: Settings) -> dict[str, float]:
    """Train as the shortest honest loop would: AdamW, clipping, loss read each step."""
    model = _model(settings).train()
    rows = _rows(text, settings.context)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    started = _now()
    for step in range(settings.steps):
        if step == settings.warmup_steps:
            started = _now()
        first = (step * settings.micro_batch) % (len(rows) - settings.micro_batch)
        batch = rows[order[first : first + settings.micro_batch]]
        logits = model(input_ids=batch[:, :-1]).logits.float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    tokens = (settings.steps - settings.warmup_steps) * settings.micro_batch * (settings.context - 1)
    return _rates(tokens, started, _now())


class _Clock(TrainerCallback):
    """Notes when the warm-up is over and when the training ends."""

    def __init__(self, warmup_steps: int) -> None:
        self.warmup_steps = warmup_steps
        self.started = self.ended = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, control, kwargs
        if state.global_step == self.warmup_steps:
            self.started = _now()
        self.ended = _now()


def _train(samples: list[dict[str, torch.Tensor]], settings: Settings, collate: Any) -> tuple[Seconds, Seconds]:
    """Return when the Trainer was past the warm-up, and when it ended."""
    clock = _Clock(settings.warmup_steps)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=settings.micro_batch,
            max_steps=settings.steps,
            learning_rate=settings.lr,
            weight_decay=0.05,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
        )
        trainer = Trainer(
            model=_model(settings), args=arguments, train_dataset=samples, data_collator=collate, callbacks=[clock]
        )
        trainer.train()
    return clock.started, clock.ended


def trainer(text: Path, settings: Settings) -> dict[str, float]:
    """Train the same rows with Hugging Face's Trainer."""
    rows = _rows(text, settings.context)
    samples = [{"input_ids": row, "labels": row} for row in rows]

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: torch.stack([sample[name] for sample in batch]) for name in ("input_ids", "labels")}

    tokens = (settings.steps - settings.warmup_steps) * settings.micro_batch * (settings.context - 1)
    return _rates(tokens, *_train(samples, settings, collate))


def padded(text: Path, settings: Settings) -> dict[str, float]:
    """Train ragged documents with the Trainer, each batch padded to its longest; padding is not counted."""
    samples = [{"input_ids": ids} for ids in _documents(text, settings.context) if len(ids) > 1]
    counted: list[int] = []

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = [sample["input_ids"] for sample in batch]
        counted.append(sum(len(one) - 1 for one in ids))
        pad = torch.nn.utils.rnn.pad_sequence
        mask = pad([torch.ones_like(one) for one in ids], batch_first=True)
        labels = pad(ids, batch_first=True, padding_value=-100)
        return {"input_ids": pad(ids, batch_first=True), "attention_mask": mask, "labels": labels}

    span = _train(samples, settings, collate)
    return _rates(sum(counted[settings.warmup_steps : settings.steps]), *span)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    contender = {"loop": minimal_loop, "trainer": trainer, "padded": padded}[sys.argv[1]]
    rates = contender(Path(sys.argv[2]), Settings(**json.loads(sys.argv[3])))
    sys.stdout.write(f"\n{json.dumps(rates)}\n")
