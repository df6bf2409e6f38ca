"""Brings a running script's metrics into the run: finds its files, polls every source, reports each step once.

Called from the worker's main thread a few times a second; a poll is bounded, so that stop requests are not held up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from core.contracts.worker import RunContext
from core.train.script.csv_source import CsvSource
from core.train.script.discovery import TRAINER_STATE, Discovery, is_tensorboard
from core.train.script.points import KeyBook, MetricSource, Point
from core.train.script.tensorboard_source import TensorBoardSource
from core.train.script.trainer_source import TrainerSource

_SCAN_PERIOD_S = 1.0
_SCAN_REST = 20.0
_DRAIN_POLLS = 1000


class ScriptWatch:
    """Everything a script may report through.

    Args:
        context: The run.
        places: Folders and files to watch.
        log: The run's output file.
        log_offset: Where this attempt's output begins in it.
    """

    def __init__(self, context: RunContext, places: Iterable[Path], log: Path, log_offset: int) -> None:
        self._context = context
        self._discovery = Discovery(places)
        self._trainer = TrainerSource(log, log_offset)
        self._files: dict[Path, MetricSource] = {}
        self._keys = KeyBook()
        self._next_scan = 0.0
        self.num_points = 0
        self._is_announced = context.attempt == 1

    def poll(self) -> int:
        """Report what is new; return the number of points."""
        started = time.monotonic()
        if started >= self._next_scan:
            self._scan()
            ended = time.monotonic()
            self._next_scan = ended + max(_SCAN_PERIOD_S, _SCAN_REST * (ended - started))
        reported = self._report(self._trainer, self._trainer.poll())
        for source in self._files.values():
            reported += self._report(source, source.poll())
        self._show_progress()
        return reported

    def finish(self) -> None:
        """Report everything that is left after the script ended, and its final numbers."""
        self._scan()
        for _ in range(_DRAIN_POLLS):
            if self.poll() == 0:
                break
        self._report(self._trainer, self._trainer.finish())
        if self._trainer.totals:
            self._context.result(self._trainer.totals)

    def _report(self, source: MetricSource, points: Iterable[Point]) -> int:
        count = 0
        for point in points:
            if not self._is_announced:
                # A script that goes on by itself tells by its first step where; what was after that is void.
                self._is_announced = True
                self._context.started_from(point.step - 1 if point.step > 0 else None)
            self._context.metric(point.step, self._keys.rename(source, point.values))
            count += 1
        self.num_points += count
        return count

    def _scan(self) -> None:
        for path in self._discovery.changed():
            if path.name == TRAINER_STATE:
                self._trainer.learn_state(path)
            elif path not in self._files:
                self._files[path] = self._open(path)
                self._context.log(f"Found {path}; its numbers become curves.")

    def _open(self, path: Path) -> MetricSource:
        if is_tensorboard(path):
            return TensorBoardSource(path)
        return CsvSource(
            path, skip_bytes=self._discovery.size_before(path), needs_step_column=not self._discovery.is_named(path)
        )

    def _show_progress(self) -> None:
        step, total = self._trainer.step, self._trainer.total_steps
        if step is not None and total:
            self._context.progress(min(1.0, step / total), "Training", step=step, total_steps=total)
