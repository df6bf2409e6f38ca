"""The pure fold from a run's events to the fields of its summary.

How: every value is kept with the stamp (time, file, position) of the event it came from, and the latest stamp wins.
So the logs of one run may be read in any order and cut into any batches, as long as each file is read from its start
on: the outcome is the same. Times never run backwards within a file: a clock that was set back is held. Curves and
lists (artifacts, checkpoints) are the index's, not folded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Any

import msgspec

from core.contracts.events import (
    AnyEvent,
    AttemptEvent,
    FailureEvent,
    LogEvent,
    MetricEvent,
    Number,
    ProgressEvent,
    ResultEvent,
    StateEvent,
)
from core.contracts.states import RunState

Stamp = tuple[float, str, int]
NEVER: Stamp = (-1e300, "", -1)
_LAST_FILE = "~"
_STARTING = frozenset({RunState.QUEUED, RunState.PREPARING, RunState.RUNNING})
_STARTED = frozenset({RunState.PREPARING, RunState.RUNNING})
_ts_of = attrgetter("ts")


class Restart(msgspec.Struct, frozen=True, array_like=True):
    """A further start of a run: training metrics written before it with a step after ``from_step`` are void.

    Attributes:
        ts: When it was written, Unix seconds.
        file: Log that tells of it.
        attempt: Number of the start.
        from_step: Step from which it goes on; None when it began anew, so that all earlier points are void.
    """

    ts: float
    file: str
    attempt: int
    from_step: int | None


class Result(msgspec.Struct, array_like=True):
    """A final metric and where it came from."""

    value: Number
    stamp: Stamp


class RunFold(msgspec.Struct, kw_only=True):
    """What was folded so far; plain data that JSON can hold.

    Attributes:
        clocks: Latest time seen in each file.
        opened: Stamp of the latest state that (re)starts the run: a failure before it is history.
        restarts: Every start after the first, in order of time.
        has_nodes: The run has a placement; only its head's logs are folded.
    """

    has_nodes: bool = False
    clocks: dict[str, float] = {}
    state: RunState = RunState.QUEUED
    state_stamp: Stamp = NEVER
    state_message: str = ""
    state_hint: str = ""
    opened: Stamp = NEVER
    started: float | None = None
    ended: float | None = None
    failure: tuple[str, str] = ("", "")
    failure_stamp: Stamp = NEVER
    attempt: int = 1
    restarts: list[Restart] = []
    progress: float | None = None
    stage: str = ""
    total_steps: int | None = None
    eta_s: float | None = None
    progress_stamp: Stamp = NEVER
    step: int | None = None
    step_stamp: Stamp = NEVER
    last_line: str = ""
    line_stamp: Stamp = NEVER
    results: dict[str, Result] = {}
    damaged_lines: int = 0

    @property
    def last_ts(self) -> float | None:
        """Time of the latest event of any file; None before the first."""
        return max(self.clocks.values(), default=None)

    @property
    def message(self) -> str:
        """The sentence that says where the run stands; the reason, when it failed."""
        told = self._told[0]
        if told or not self.damaged_lines:
            return told
        lines = "1 damaged line" if self.damaged_lines == 1 else f"{self.damaged_lines} damaged lines"
        return f"Skipped {lines} in the event logs."

    @property
    def hint(self) -> str:
        """The remedy that belongs to ``message``."""
        return self._told[1]

    @property
    def _told(self) -> tuple[str, str]:
        """Sentence and remedy: a worker's own reason before the supervisor's, unless there are several nodes.

        Then the head's supervisor alone knows which of them failed first.
        """
        concluded, failure = (self.state_message, self.state_hint), self._failure
        first, second = (concluded, failure) if self.has_nodes else (failure, concluded)
        return first if first[0] else second if second[0] else concluded

    @property
    def _failure(self) -> tuple[str, str]:
        is_current = self.state is RunState.FAILED and self.failure_stamp > self.opened
        return self.failure if is_current else ("", "")


def steady_times(fold: RunFold, file: str, events: Sequence[AnyEvent]) -> list[float]:
    """Return the events' times, held where the clock was set back. Does not change the fold."""
    return list(accumulate(map(_ts_of, events), max, initial=fold.clocks.get(file, float("-inf"))))[1:]


def fold_events(fold: RunFold, file: str, events: Sequence[AnyEvent], times: Iterable[float]) -> None:
    """Fold the next events of one log into ``fold``, in place.

    Args:
        fold: What was folded before.
        file: Name of the log; its events must come in order, each once.
        events: The events.
        times: Their ``steady_times``.
    """
    last_metric: tuple[float, MetricEvent] | None = None
    moment = fold.clocks.get(file)
    for moment, event in zip(times, events, strict=True):
        if type(event) is MetricEvent:
            last_metric = (moment, event)
        elif (fold_one := _FOLDS.get(type(event))) is not None:
            fold_one(fold, (moment, file, event.seq), event)
    if last_metric is not None:
        _set_step(fold, (last_metric[0], file, last_metric[1].seq), last_metric[1].step)
    if moment is not None:
        fold.clocks[file] = moment


def fold_aside(fold: RunFold, file: str, times: Sequence[float]) -> None:
    """Fold events that say nothing of the run itself, such as another node's: only that they were seen."""
    if times:
        fold.clocks[file] = times[-1]


def fold_reopening(fold: RunFold) -> None:
    """Fold that an ended run was started again: the next state in its logs holds, whatever time it bears."""
    fold_conclusion(fold, RunState.QUEUED)
    fold.state_stamp = fold.opened = NEVER


def fold_conclusion(
    fold: RunFold, state: RunState, message: str = "", hint: str = "", ended: float | None = None
) -> None:
    """Fold what a reader concluded from outside the logs. It holds until the run itself says something newer."""
    moment = ended if ended is not None else fold.last_ts
    fold.state = state
    fold.state_stamp = (max(fold.state_stamp[0], NEVER[0] if moment is None else moment), _LAST_FILE, 0)
    fold.state_message, fold.state_hint = message, hint
    fold.ended = moment if state.is_terminal else None


def _set_step(fold: RunFold, stamp: Stamp, step: int | None) -> None:
    if step is not None and stamp >= fold.step_stamp:
        fold.step, fold.step_stamp = step, stamp


def _fold_state(fold: RunFold, stamp: Stamp, event: StateEvent) -> None:
    if event.state in _STARTED:
        fold.started = stamp[0] if fold.started is None else min(fold.started, stamp[0])
    if event.state in _STARTING:
        fold.opened = max(fold.opened, stamp)
    if stamp >= fold.state_stamp:
        fold.state, fold.state_stamp = event.state, stamp
        fold.state_message, fold.state_hint = event.message, event.hint
        fold.ended = stamp[0] if event.state.is_terminal else None


def _fold_attempt(fold: RunFold, stamp: Stamp, event: AttemptEvent) -> None:
    fold.attempt = max(fold.attempt, event.attempt)
    if event.attempt > 1:
        restart = Restart(stamp[0], stamp[1], event.attempt, event.resumed_from_step)
        fold.restarts = sorted([*fold.restarts, restart], key=lambda r: (r.ts, r.file, r.attempt))
        _set_step(fold, stamp, event.resumed_from_step)


def _fold_progress(fold: RunFold, stamp: Stamp, event: ProgressEvent) -> None:
    if stamp >= fold.progress_stamp:
        fold.progress_stamp = stamp
        fold.progress, fold.stage = event.done, event.stage
        fold.total_steps, fold.eta_s = event.total_steps, event.eta_s
    _set_step(fold, stamp, event.step)


def _set_line(fold: RunFold, stamp: Stamp, line: str) -> None:
    if line.strip() and stamp >= fold.line_stamp:
        fold.last_line, fold.line_stamp = line.strip(), stamp


def _fold_log(fold: RunFold, stamp: Stamp, event: LogEvent) -> None:
    _set_line(fold, stamp, event.message)


def _fold_failure(fold: RunFold, stamp: Stamp, event: FailureEvent) -> None:
    if stamp >= fold.failure_stamp:
        fold.failure, fold.failure_stamp = (event.message, event.hint), stamp
    _set_line(fold, stamp, event.message)


def _fold_result(fold: RunFold, stamp: Stamp, event: ResultEvent) -> None:
    for key, value in event.values.items():
        if key not in fold.results or stamp >= fold.results[key].stamp:
            fold.results[key] = Result(value, stamp)


_FOLDS: dict[type, Callable[[RunFold, Stamp, Any], None]] = {
    StateEvent: _fold_state,
    AttemptEvent: _fold_attempt,
    ProgressEvent: _fold_progress,
    LogEvent: _fold_log,
    FailureEvent: _fold_failure,
    ResultEvent: _fold_result,
}
