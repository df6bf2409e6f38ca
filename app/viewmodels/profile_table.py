"""A profile in words: operators as rows of a table, categories and phases as parts of the time. Knows no Qt."""

from __future__ import annotations

import tomllib

from app.viewmodels.record_table import RecordColumn
from app.viewmodels.wording import moment_text, span_text
from core.contracts.profiles import OperatorTime, ProfileReport

_MAX_PHASES = 8


def fine_span_text(seconds: float) -> str:
    """Return a duration down to microseconds, such as ``12.3 ms`` or ``840 µs``."""
    if seconds >= 1 or seconds <= 0:
        return span_text(seconds) if seconds > 0 else "0"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e6:.0f} µs"


def can_profile(spec_toml: str) -> bool:
    """Tell whether a spec is of a training that records profiles."""
    try:
        return "tuning" in tomllib.loads(spec_toml)
    except tomllib.TOMLDecodeError:
        return False


def heading(report: ProfileReport) -> str:
    """Return what was recorded, in words."""
    what = "the whole run"
    if report.steps == 1:
        what = f"step {report.first_step}"
    elif report.steps:
        what = f"steps {report.first_step} to {report.first_step + report.steps - 1}"
    who = f"rank {report.rank} on {report.device}" if report.rank >= 0 else f"all processes, {report.device}"
    return f"{what[0].upper()}{what[1:]}, {who}: {fine_span_text(report.wall_s)} by {report.source}, {moment_text(report.recorded_at)}"


def operators_of(report: ProfileReport, text: str) -> list[OperatorTime]:
    """Return the operators whose name contains every word of ``text``."""
    words = text.lower().split()
    return [operator for operator in report.operators if all(word in operator.name.lower() for word in words)]


def phase_shares(report: ProfileReport) -> list[tuple[str, float, float]]:
    """Return the longest phases: name, seconds and share of the wall time. Phases may lie within each other."""
    timed = [(phase.name, max(phase.total_cpu_s, phase.total_device_s)) for phase in report.phases[:_MAX_PHASES]]
    return [(name, seconds, min(seconds / report.wall_s, 1.0) if report.wall_s > 0 else 0.0) for name, seconds in timed]


def has_device_times(report: ProfileReport) -> bool:
    """Tell whether anything ran on a GPU."""
    return any(operator.total_device_s > 0 for operator in report.operators)


DEVICE_COLUMNS = (4, 5)
OPERATOR_COLUMNS = (
    RecordColumn(title="Operator", text=lambda row: row.name, key=lambda row: row.name.lower()),
    RecordColumn(title="Calls", text=lambda row: str(row.calls), key=lambda row: row.calls, is_number=True),
    RecordColumn(
        title="CPU, itself",
        text=lambda row: fine_span_text(row.self_cpu_s),
        key=lambda row: row.self_cpu_s,
        is_number=True,
    ),
    RecordColumn(
        title="CPU, with callees",
        text=lambda row: fine_span_text(row.total_cpu_s),
        key=lambda row: row.total_cpu_s,
        is_number=True,
    ),
    RecordColumn(
        title="GPU, itself",
        text=lambda row: fine_span_text(row.self_device_s),
        key=lambda row: row.self_device_s,
        is_number=True,
    ),
    RecordColumn(
        title="GPU, with callees",
        text=lambda row: fine_span_text(row.total_device_s),
        key=lambda row: row.total_device_s,
        is_number=True,
    ),
)
