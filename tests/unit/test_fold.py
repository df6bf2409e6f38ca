"""The fold of events into a summary: any order of logs, any cut into batches, one outcome."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.events import (
    AnyEvent,
    AttemptEvent,
    FailureEvent,
    LogEvent,
    MetricEvent,
    ProgressEvent,
    ResultEvent,
    StateEvent,
)
from core.contracts.states import RunState
from core.runlog.fold import RunFold, fold_conclusion, fold_events, steady_times

FILES = ("events.local.0.jsonl", "events.local.supervisor.jsonl", "telemetry.local.jsonl")
_states = st.sampled_from(sorted(RunState))
_text = st.sampled_from(["", "one", "two", "  "])
_steps = st.integers(0, 50)
_makers: list[st.SearchStrategy[tuple[type, dict[str, Any]]]] = [
    st.tuples(st.just(StateEvent), st.fixed_dictionaries({"state": _states, "message": _text, "hint": _text})),
    st.tuples(
        st.just(AttemptEvent),
        st.fixed_dictionaries({"attempt": st.integers(1, 4), "resumed_from_step": st.none() | _steps}),
    ),
    st.tuples(st.just(MetricEvent), st.fixed_dictionaries({"step": _steps, "values": st.just({"loss": 1.0})})),
    st.tuples(
        st.just(ProgressEvent),
        st.fixed_dictionaries({"done": st.floats(0, 1), "stage": _text, "step": st.none() | _steps}),
    ),
    st.tuples(st.just(LogEvent), st.fixed_dictionaries({"message": _text})),
    st.tuples(
        st.just(ResultEvent),
        st.fixed_dictionaries(
            {"values": st.dictionaries(st.sampled_from("ab"), st.sampled_from([0.5, "nan", "inf", "-inf"]))}
        ),
    ),
    st.tuples(st.just(FailureEvent), st.fixed_dictionaries({"kind": st.just("bug"), "message": _text, "hint": _text})),
]


@st.composite
def logs(draw: st.DrawFn) -> dict[str, list[AnyEvent]]:
    """Draw the logs of a run; clocks are now and then set back, but no two files share a time."""
    drawn = draw(st.lists(st.tuples(st.sampled_from(FILES), st.one_of(_makers), st.integers(-3, 5)), max_size=40))
    found: dict[str, list[AnyEvent]] = {file: [] for file in FILES}
    clock = 1000
    for file, (event_type, fields), pause in drawn:
        clock += pause
        events = found[file]
        events.append(event_type(seq=len(events), ts=clock + FILES.index(file) / 8, **fields))
    return found


def folded(batches: list[tuple[str, list[AnyEvent]]]) -> RunFold:
    fold = RunFold()
    for file, events in batches:
        fold_events(fold, file, events, steady_times(fold, file, events))
    return fold


@given(logs(), st.randoms(use_true_random=False))
def test_any_cut_and_order_of_logs_gives_the_same_fold(found: dict[str, list[AnyEvent]], random: Any) -> None:
    whole = folded(list(found.items()))
    left = {file: list(events) for file, events in found.items()}
    batches: list[tuple[str, list[AnyEvent]]] = []
    while any(left.values()):
        file = random.choice([name for name, events in left.items() if events])
        count = random.randint(1, len(left[file]))
        batches.append((file, left[file][:count]))
        left[file] = left[file][count:]
    assert folded(batches) == whole


@given(logs())
def test_a_fold_survives_its_way_through_json(found: dict[str, list[AnyEvent]]) -> None:
    fold = folded(list(found.items()))
    assert msgspec.json.decode(msgspec.json.encode(fold), type=RunFold) == fold


def one_log(*events: AnyEvent) -> RunFold:
    return folded([(FILES[0], list(events))])


def state(seq: int, to: str, message: str = "") -> StateEvent:
    return StateEvent(seq=seq, ts=100.0 + seq, state=RunState(to), message=message)


def test_start_and_end_come_from_the_states_and_a_restart_opens_the_run_again() -> None:
    fold = one_log(state(0, "queued"), state(1, "preparing"), state(2, "running"), state(3, "failed", "why"))
    assert (fold.started, fold.ended, fold.message) == (101.0, 103.0, "why")
    fold_events(fold, FILES[0], [state(4, "queued")], [104.0])
    assert (fold.state, fold.ended, fold.message) == (RunState.QUEUED, None, "")


def test_the_workers_reason_goes_before_the_supervisors_and_is_forgotten_by_the_next_start() -> None:
    failure = FailureEvent(seq=1, ts=101.0, kind="bug", message="Out of memory.", hint="Halve the batch.")
    fold = one_log(state(0, "running"), failure, state(2, "failed", "exit status 1"))
    assert (fold.message, fold.hint, fold.last_line) == ("Out of memory.", "Halve the batch.", "Out of memory.")
    fold_events(fold, FILES[0], [state(3, "running"), state(4, "failed", "killed")], [103.0, 104.0])
    assert (fold.message, fold.hint) == ("killed", "")


def test_a_clock_that_is_set_back_is_held() -> None:
    events: list[AnyEvent] = [LogEvent(seq=n, ts=ts, message=str(n)) for n, ts in enumerate([10.0, 4.0, 11.0])]
    fold = RunFold()
    assert steady_times(fold, FILES[0], events) == [10.0, 10.0, 11.0]
    assert one_log(*events[:2]).last_line == "1"


def test_a_restart_takes_the_step_back_to_where_it_goes_on() -> None:
    metric = MetricEvent(seq=0, ts=1.0, step=90, values={"loss": 1.0})
    fold = one_log(metric, AttemptEvent(seq=1, ts=2.0, attempt=2, resumed_from_step=40))
    assert (fold.step, fold.attempt) == (40, 2)
    assert [restart.from_step for restart in fold.restarts] == [40]


def test_the_first_start_is_no_restart() -> None:
    assert one_log(AttemptEvent(seq=0, ts=2.0, attempt=1, resumed_from_step=None)).restarts == []


def test_a_conclusion_holds_until_the_run_says_something_newer() -> None:
    fold = one_log(state(0, "running"))
    fold_conclusion(fold, RunState.LOST, "Gone.", "Resume it.", ended=90.0)
    assert (fold.state, fold.ended, fold.message, fold.hint) == (RunState.LOST, 90.0, "Gone.", "Resume it.")
    fold_events(fold, FILES[0], [state(1, "running")], [101.0])
    assert (fold.state, fold.ended) == (RunState.RUNNING, None)


def test_a_conclusion_before_any_event_has_no_end_where_none_is_known() -> None:
    fold = RunFold()
    fold_conclusion(fold, RunState.LOST)
    assert (fold.state, fold.ended) == (RunState.LOST, None)
    assert msgspec.json.decode(msgspec.json.encode(fold), type=RunFold) == fold


@pytest.mark.parametrize(("count", "words"), [(1, "1 damaged line"), (3, "3 damaged lines")])
def test_damaged_lines_are_told_where_there_is_nothing_else_to_tell(count: int, words: str) -> None:
    fold = one_log(state(0, "running"))
    fold.damaged_lines = count
    assert words in fold.message
    fold.state_message = "Training"
    assert fold.message == "Training"


def test_results_are_merged_and_the_latest_of_a_name_counts() -> None:
    fold = one_log(
        ResultEvent(seq=0, ts=1.0, values={"a": 1.0, "b": "nan"}), ResultEvent(seq=1, ts=2.0, values={"a": 2.0})
    )
    assert fold.results["a"].value == 2.0
    assert math.isnan(float(fold.results["b"].value))
