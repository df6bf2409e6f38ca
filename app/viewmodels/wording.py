"""Records in the user's words: durations, moments, sizes, states and metrics as short texts with units."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime

from core.contracts.runs import RunSummary
from core.contracts.states import RunState

STATE_TITLES = {
    RunState.QUEUED: "Queued",
    RunState.PREPARING: "Preparing",
    RunState.RUNNING: "Running",
    RunState.PAUSING: "Pausing",
    RunState.PAUSED: "Paused",
    RunState.STOPPING: "Stopping",
    RunState.SUCCEEDED: "Succeeded",
    RunState.FAILED: "Failed",
    RunState.STOPPED: "Stopped",
    RunState.LOST: "Lost",
}

_MAIN_METRICS = (
    "test/accuracy",
    "val/accuracy",
    "accuracy",
    "test/loss",
    "val/loss",
    "train/loss",
    "loss",
    "latency_p50_ms",
    "latency_ms",
    "throughput_per_s",
)
_MAIN_ENDINGS = ("/p50_ms", "/accuracy", "/loss")
_DIGITS = re.compile(r"(\d+)")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def span_text(seconds: float) -> str:
    """Return a duration such as ``350 ms``, ``42 s``, ``3 min 20 s``, ``5 h 12 min`` or ``3 d 4 h``."""
    if seconds < 0 or not math.isfinite(seconds):
        return "—"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 86_400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86_400, "d", whole % 86_400 // 3600, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def duration_text(summary: RunSummary) -> str:
    """Return how long a run took, or has been going on."""
    if summary.duration_s is not None:
        return span_text(summary.duration_s)
    if summary.started is None or summary.state.is_terminal:
        return ""
    return span_text(max(time.time() - summary.started, 0.0))


def moment_text(ts: float | None, now: float | None = None) -> str:
    """Return a moment as people say it: ``just now``, ``12 min ago``, ``yesterday 14:03``, ``2026-03-01``."""
    if ts is None:
        return ""
    reference = time.time() if now is None else now
    age = reference - ts
    if age < 45:
        return "just now"
    if age < 3600:
        return f"{max(round(age / 60), 1)} min ago"
    moment, today = datetime.fromtimestamp(ts), datetime.fromtimestamp(reference)
    days = (today.date() - moment.date()).days
    if days == 0:
        return f"today {moment:%H:%M}"
    if days == 1:
        return f"yesterday {moment:%H:%M}"
    return f"{moment:%a %H:%M}" if days < 7 else f"{moment:%Y-%m-%d}"


def size_text(size_bytes: float) -> str:
    """Return a size with a binary unit, such as ``512 B`` or ``1.3 GiB``."""
    value, unit = float(size_bytes), _BINARY_UNITS[0]
    for unit in _BINARY_UNITS:
        if abs(value) < 1024 or unit == _BINARY_UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.1f} {unit}"


def number_text(value: float) -> str:
    """Return a number with about five significant digits, without needless exponents."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(int(value))
    if 1e-3 <= abs(value) < 1e6:
        digits = max(0, 4 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(digits, 6)}f}"
    return f"{value:.4g}"


def state_text(summary: RunSummary) -> str:
    """Return the state for people, with a mark when the run is not answering."""
    title = STATE_TITLES[summary.state]
    return f"{title} · silent" if summary.silent_since is not None and not summary.state.is_terminal else title


def progress_text(summary: RunSummary) -> str:
    """Return how far a run is and what it does."""
    if summary.state.is_terminal:
        return summary.stage if summary.state is not RunState.SUCCEEDED else ""
    if summary.state is RunState.QUEUED:
        return summary.message or summary.stage
    share = "" if summary.progress is None else f"{summary.progress:.0%}"
    return " · ".join(part for part in (share, summary.stage) if part)


def main_metric(summary: RunSummary) -> tuple[str, float] | None:
    """Return the metric that says most about a run: a known one, else one that ends like it, else the first."""
    for key in _MAIN_METRICS:
        if key in summary.final:
            return key, summary.final[key]
    for ending in _MAIN_ENDINGS:
        for key, value in summary.final.items():
            if key.endswith(ending):
                return key, value
    return next(iter(summary.final.items()), None)


def hosts_text(host: str) -> str:
    """Return where a run is in a few words; of many hosts the first is named and the others are counted."""
    first, *others = host.split(", ")
    return f"{first} and {len(others)} more" if len(others) > 1 else host


def natural_key(text: str) -> tuple[tuple[bool, int, str], ...]:
    """Return what to sort by so that ``lab-2`` comes before ``lab-10``."""
    parts = _DIGITS.split(text.lower())
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def metric_text(summary: RunSummary) -> str:
    """Return the main metric with its name."""
    found = main_metric(summary)
    return f"{found[0]} {number_text(found[1])}" if found else ""
