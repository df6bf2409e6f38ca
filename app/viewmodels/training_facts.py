"""What a training's run says beyond its curves: where a step's time went, texts it generated, which checkpoint is best.

Reads names that the training engine writes (``core.train.engine``); of a run without them nothing is found. Knows no Qt.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from app.viewmodels.curve_names import is_of_rank, metric_unit
from app.viewmodels.wording import number_text, size_text
from core.contracts.events import Cell
from core.contracts.runs import CheckpointRecord, RunDetail, TableRecord

_PARTS = (
    ("train/data_wait_s", "Waiting for data"),
    ("train/forward_backward_s", "Forward and backward"),
    ("train/optimizer_s", "Optimizer"),
    ("train/communication_s", "Communication"),
)
_STEP = "train/step_time_s"
_BEST = "best_step"
_LONG_TEXT = 60
_NAMED_TEXT = frozenset({"text", "sample", "continuation", "generated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSample:
    """A generated text and what is known of it, such as its step and prompt."""

    about: str
    text: str


def time_split(final: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Return the seconds of a step by what they were spent on, from a run's latest values; empty when not told."""
    found = [(title, final[key]) for key, title in _PARTS if final.get(key, 0.0) > 0]
    if not found:
        return ()
    rest = final.get(_STEP, 0.0) - sum(seconds for _, seconds in found)
    return (*found, ("Other", rest)) if rest > 0 else tuple(found)


def headline_values(final: Mapping[str, float]) -> dict[str, float]:
    """Return what stands for a run as a whole: not the values of single ranks, nor the parts of a step's time."""
    apart = {key for key, _ in _PARTS}
    return {key: value for key, value in final.items() if key not in apart and not is_of_rank(key)}


def value_text_of(key: str, value: float) -> str:
    """Return a metric's value in words, with the unit that its name ends in."""
    unit = metric_unit(key)
    if unit == "B" and math.isfinite(value):
        return size_text(value)
    if unit == "s" and 0 < abs(value) < 1:
        return f"{number_text(value * 1000)} ms"
    return f"{number_text(value)} {unit}".strip()


def is_text_table(table: TableRecord) -> bool:
    """Tell whether a table holds texts to read rather than figures to compare."""
    if not table.columns or table.columns[-1].lower() not in _NAMED_TEXT:
        return False
    return any(isinstance(cell, str) and (len(cell) > _LONG_TEXT or "\n" in cell) for row in table.rows for cell in row)


def text_samples(table: TableRecord) -> list[TextSample]:
    """Return the texts of a table, the newest (last) first."""
    return [_sample(table.columns, row) for row in reversed(table.rows) if row]


def _sample(columns: Sequence[str], row: Sequence[Cell]) -> TextSample:
    about = [
        f"{name} {_cell(cell)}" for name, cell in zip(columns[:-1], row[:-1], strict=False) if cell not in (None, "")
    ]
    return TextSample(about=" · ".join(about), text=str(row[-1]))


def _cell(cell: Cell) -> str:
    if isinstance(cell, (int, float)) and not isinstance(cell, bool):
        return number_text(cell)
    return f"“{' '.join(str(cell).split())}”"


def best_step(detail: RunDetail) -> int | None:
    """Return the step of the best checkpoint: as a model it made says, else the one kept though it is older than the newest."""
    steps = sorted(record.step for record in detail.checkpoints)
    for artifact in detail.artifacts:
        told = artifact.meta.get(_BEST)
        if isinstance(told, (int, float)) and told in steps:
            return int(told)
    asked = _checkpoints_of(detail.spec_toml)
    keep_last = asked.get("keep_last")
    if not asked.get("keep_best", False) or not isinstance(keep_last, int) or len(steps) != keep_last + 1:
        return None
    return steps[0]


def can_start_from(spec_toml: str) -> bool:
    """Tell whether a spec is of a kind that can begin from a checkpoint of another run."""
    return "start_from" in _checkpoints_of(spec_toml)


def checkpoint_marks(record: CheckpointRecord, newest: int, best: int | None) -> str:
    """Return what a checkpoint is, in words: newest, best, both or nothing."""
    return " · ".join(word for word, step in (("newest", newest), ("best", best)) if record.step == step)


def _checkpoints_of(spec_toml: str) -> dict[str, Any]:
    try:
        told = tomllib.loads(spec_toml).get("checkpoints", {})
    except tomllib.TOMLDecodeError:
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}
