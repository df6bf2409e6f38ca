"""Metrics from what the Hugging Face Trainer prints: ``{'loss': 1.23, ..., 'epoch': 0.5}`` and its progress bar.

The printed line lacks the step, but the bar that is redrawn right after it shows it exactly. Without a bar
(``disable_tqdm``) the step comes from the epoch and the ratio in ``trainer_state.json`` once that exists, before that
from the number of lines. Names follow the Trainer's own reports: ``train/loss``, ``eval/loss``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from core.train.script.follow import FollowedFile
from core.train.script.points import Point

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\[rank\d+\]: ?")
_BREAKS = re.compile(r"[\r\n]+")
_DICTIONARY = re.compile(r"\{['\"].*\}\s*$")
_BAR = re.compile(r"\|\s*(\d+)/(\d+) \[")
_LONGEST_LINE = 1 << 16
_STEP_KEYS = ("step", "global_step")
_TOTALS = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")


def parse_log_line(text: str) -> dict[str, float] | None:
    """Return the numbers of a printed log dictionary that has an epoch or a step; None for any other text."""
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return None
    try:
        parsed = ast.literal_eval(stripped)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(parsed, dict) or not any(key in parsed for key in ("epoch", *_STEP_KEYS)):
        return None
    numbers: dict[str, float] = {}
    for key, value in parsed.items():
        try:
            numbers[str(key)] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers


def metric_name(key: str) -> str:
    """Return the Trainer's own name of a metric in its reports, such as ``eval/loss`` for ``eval_loss``."""
    for part in ("eval", "test"):
        if key.startswith(f"{part}_"):
            return f"{part}/{key.removeprefix(f'{part}_')}"
    return f"train/{key}"


class TrainerSource:
    """The output of a script, from a byte offset on.

    Attributes:
        total_steps: Steps of the whole training, from the bar; None before it was seen.
        step: Where the bar stands.
        totals: The run's final numbers, printed at the end of the training.
    """

    label = "trainer"

    def __init__(self, log: Path, offset: int) -> None:
        self._file = FollowedFile(log, offset)
        self._rest = ""
        self._waiting: dict[str, float] | None = None
        self._lines = 0
        self._steps_per_epoch: float | None = None
        self.total_steps: int | None = None
        self.step: int | None = None
        self.totals: dict[str, float] = {}

    def poll(self) -> Iterator[Point]:
        """Yield what was printed since."""
        data = self._file.read().decode("utf-8", errors="replace")
        *segments, self._rest = _BREAKS.split(self._rest + data)
        for segment in segments:
            yield from self._take(segment)
        if self._waiting is not None and self._see_bar(_ESCAPES.sub("", self._rest)):
            yield from self._release()
        if len(self._rest) > _LONGEST_LINE:
            self._rest = ""

    def finish(self) -> Iterator[Point]:
        """Yield what still waits for a bar that will not come."""
        yield from self._take(self._rest)
        yield from self._release()

    def learn_state(self, path: Path) -> None:
        """Take the ratio of steps to epochs from a ``trainer_state.json``; a damaged one is passed over."""
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self._steps_per_epoch = float(state["global_step"]) / float(state["epoch"])
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            return

    def _take(self, segment: str) -> Iterator[Point]:
        text = _ESCAPES.sub("", segment)
        if self._see_bar(text):
            yield from self._release()
        printed = _DICTIONARY.search(text)
        numbers = None if printed is None else parse_log_line(printed[0])
        if numbers is not None:
            yield from self._release()
            self._waiting = numbers
            self._lines += 1
            if self.total_steps is None:
                yield from self._release()

    def _see_bar(self, text: str) -> bool:
        match = _BAR.search(text)
        if match is None:
            return False
        done, total = int(match[1]), int(match[2])
        if self.total_steps is None:
            self.total_steps = total
        if total != self.total_steps:
            return False
        self.step = done
        return True

    def _release(self) -> Iterator[Point]:
        numbers, self._waiting = self._waiting, None
        if numbers is None:
            return
        step = self._step_of(numbers)
        self.totals.update({f"train/{key.removeprefix('train_')}": numbers[key] for key in _TOTALS if key in numbers})
        values = {metric_name(key): value for key, value in numbers.items() if key not in (*_TOTALS, *_STEP_KEYS)}
        yield Point(step, values)

    def _step_of(self, numbers: dict[str, float]) -> int:
        for key in _STEP_KEYS:
            if key in numbers:
                return int(numbers[key])
        if self.step is not None:
            return self.step
        if self._steps_per_epoch is not None and "epoch" in numbers:
            return round(numbers["epoch"] * self._steps_per_epoch)
        return self._lines
