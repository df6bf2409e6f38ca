"""The stability guard's events of a run: in words, counted, filtered; and the policies that were in force. Knows no Qt."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from app.viewmodels.record_table import RecordColumn
from app.viewmodels.wording import moment_text
from core.contracts.runs import MarkerRecord, RunDetail

SIGNAL_TITLES = {
    "not_finite": "Not finite",
    "loss_spike": "Loss spike",
    "gradient_spike": "Gradient spike",
    "update_ratio": "Large update",
    "scale_collapse": "Loss scale collapse",
    "slow_step": "Throughput drop",
    "data_wait": "Waits for data",
}
ACTION_TITLES = {
    "note": "Noted",
    "clip": "Clipped",
    "skip": "Step skipped",
    "lower-lr": "Learning rate lowered",
    "raise-accumulation": "Accumulation raised",
    "roll-back": "Rolled back",
    "pause": "Paused",
    "stop": "Stopped",
}
_POLICY_WORDS = {
    "ignore": "ignore",
    "note": "note",
    "clip": "clip the gradient",
    "skip": "skip the step",
    "lower-lr": "lower the learning rate",
    "raise-accumulation": "raise the accumulation",
    "roll-back": "roll back",
    "pause": "pause the run",
    "stop": "stop the run",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """One policy in force: the signal and what is done, both in words."""

    signal: str
    policy: str


def signal_title(signal: str) -> str:
    """Return a signal in words."""
    return SIGNAL_TITLES.get(signal, signal.replace("_", " ").capitalize()) or "Event"


def action_title(action: str) -> str:
    """Return what was done, in words."""
    return ACTION_TITLES.get(action, action.replace("-", " ").capitalize())


def event_text(marker: MarkerRecord) -> str:
    """Return a marker as one line: of a stability event signal, action and reason."""
    if not marker.signal:
        return f"{marker.kind.capitalize()}: {marker.text}"
    return f"{signal_title(marker.signal)}, {action_title(marker.action).lower()}: {marker.text}"


def stability_events(detail: RunDetail) -> tuple[MarkerRecord, ...]:
    """Return the guard's events, oldest first."""
    return tuple(marker for marker in detail.markers if marker.kind == "stability")


def counts(events: Sequence[MarkerRecord]) -> tuple[tuple[str, int], ...]:
    """Return how often each signal was seen, the most frequent first."""
    return tuple(Counter(event.signal for event in events).most_common())


def filtered(events: Sequence[MarkerRecord], text: str, signal: str = "", action: str = "") -> list[MarkerRecord]:
    """Return the events of a signal and an action (empty for any) that contain every word of ``text``."""
    words = text.lower().split()
    return [
        event
        for event in events
        if (not signal or event.signal == signal)
        and (not action or event.action == action)
        and all(word in f"{event.step} {event_text(event)}".lower() for word in words)
    ]


def has_guard(spec_toml: str) -> bool:
    """Tell whether a spec is of a training that the guard can watch."""
    return bool(_stability_of(spec_toml))


def policies(spec_toml: str) -> tuple[PolicyRow, ...]:
    """Return the policies of a spec; empty when the guard is off or there is none."""
    told = _stability_of(spec_toml)
    if not told.get("guard", False):
        return ()
    return tuple(
        PolicyRow(signal=signal_title(name.removeprefix("on_")), policy=_POLICY_WORDS.get(str(value), str(value)))
        for name, value in told.items()
        if name.startswith("on_")
    )


def _stability_of(spec_toml: str) -> dict[str, Any]:
    try:
        told = tomllib.loads(spec_toml).get("stability", {})
    except tomllib.TOMLDecodeError:
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def _step_of(event: MarkerRecord) -> int:
    return -1 if event.step is None else event.step


COLUMNS = (
    RecordColumn(
        title="Step",
        text=lambda event: "" if event.step is None else f"{event.step:,}".replace(",", "\u202f"),
        key=_step_of,
        is_number=True,
    ),
    RecordColumn(title="When", text=lambda event: moment_text(event.ts), key=lambda event: event.ts),
    RecordColumn(title="Signal", text=lambda event: signal_title(event.signal), key=lambda event: event.signal),
    RecordColumn(title="Action", text=lambda event: action_title(event.action), key=lambda event: event.action),
    RecordColumn(title="Reason", text=lambda event: event.text, key=lambda event: event.text),
)
