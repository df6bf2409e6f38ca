"""Hosts in the user's words: how the connection stands, how old readings are, what a runtime is, who is ahead in a queue."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from app.viewmodels.wording import span_text
from core.contracts.hosts import (
    LOCAL_HOST,
    CheckReport,
    FindingLevel,
    HostGpu,
    HostRecord,
    HostStatus,
    LinkState,
    QueueEntry,
    RuntimeRecord,
)

if TYPE_CHECKING:
    from core.fleet.slurm import SlurmInfo

THIS_COMPUTER = "This computer"
_FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """How something is shown: a word, the name of a colour of the theme, the name of an icon."""

    word: str
    colour: str
    icon: str


_LINK_LOOKS = {
    LinkState.IDLE: Look("Not connected", "text_faint", "minus"),
    LinkState.CONNECTING: Look("Connecting…", "info", "clock"),
    LinkState.ONLINE: Look("Online", "success", "success"),
    LinkState.UNREACHABLE: Look("Unreachable", "warning", "warning"),
    LinkState.REFUSED: Look("Refused", "danger", "error"),
}

LEVEL_LOOKS = {
    FindingLevel.OK: Look("OK", "success", "success"),
    FindingLevel.WARNING: Look("Warning", "warning", "warning"),
    FindingLevel.ERROR: Look("Error", "danger", "error"),
}


def host_title(name: str) -> str:
    """Return a host's name for people."""
    return THIS_COMPUTER if name == LOCAL_HOST else name


def link_look(status: HostStatus) -> Look:
    """Return how the state of a connection is shown; the word says since when a host does not answer."""
    look = _LINK_LOOKS[status.state]
    if status.state is LinkState.UNREACHABLE and status.since:
        return Look(f"Unreachable since {clock_text(status.since)}", look.colour, look.icon)
    return look


def link_sentence(status: HostStatus, now: float | None = None) -> str:
    """Return what is wrong with a connection, the remedy, and when it is tried again; empty when nothing is wrong."""
    parts = [status.message, status.hint]
    if status.next_try is not None and status.state is not LinkState.ONLINE:
        wait = status.next_try - (time.time() if now is None else now)
        parts.append("Trying again now." if wait < 1 else f"Next try in {span_text(round(wait))}.")
    return " ".join(part for part in parts if part)


def clock_text(ts: float, now: float | None = None) -> str:
    """Return a moment by the clock: ``14:03``, ``Mon 14:03`` within a week, else ``2026-03-01 14:03``."""
    moment, today = datetime.fromtimestamp(ts), datetime.fromtimestamp(time.time() if now is None else now)
    days = (today.date() - moment.date()).days
    if days == 0:
        return f"{moment:%H:%M}"
    return f"{moment:%a %H:%M}" if 0 < days < 7 else f"{moment:%Y-%m-%d %H:%M}"


def age_text(age_s: float) -> str:
    """Return an age: ``now``, ``12 s ago``, ``3 min ago``, ``2 h 5 min ago``."""
    if age_s < _FRESH_S:
        return "now"
    if age_s < 60:
        return f"{age_s:.0f} s ago"
    return f"{span_text(age_s // 60 * 60)} ago"


def readings_age_s(status: HostStatus, now: float) -> float | None:
    """Return how old a host's readings are, its clock's error taken out; None without readings."""
    if status.readings_ts is None:
        return None
    return max(now - (status.readings_ts - (status.clock_skew_s or 0.0)), 0.0)


def address_text(record: HostRecord) -> str:
    """Return where a host is: ``user@address:port``, or its name in the ssh config, and the hops before it."""
    user = f"{record.user}@" if record.user else ""
    port = f":{record.port}" if record.port else ""
    place = f"{user}{record.address}{port}" if record.address else f"{user}{record.alias or record.name}{port}"
    return f"{place} via {' › '.join(record.jump)}" if record.jump else place


def runtime_text(runtime: RuntimeRecord) -> str:
    """Return what a host's runtime is, in a sentence without its end."""
    if runtime.kind == "managed":
        return f"Managed environment, torch for {runtime.torch_backend}"
    return f"Your own interpreter {runtime.python}" if runtime.kind == "interpreter" else "Nothing is set up yet"


def check_text(report: CheckReport) -> str:
    """Return a check's outcome in a line."""
    counts = {level: sum(finding.level is level for finding in report.findings) for level in FindingLevel}
    errors, warnings = counts[FindingLevel.ERROR], counts[FindingLevel.WARNING]
    if not errors and not warnings:
        return f"All {len(report.findings)} checks passed" if len(report.findings) > 1 else "The check passed"
    parts = [f"{errors} error{'s' if errors > 1 else ''}"] if errors else []
    parts += [f"{warnings} warning{'s' if warnings > 1 else ''}"] if warnings else []
    return ", ".join(parts)


def gpus_text(gpus: tuple[HostGpu, ...]) -> str:
    """Return how many GPUs a host has free, of which kind, and who holds the others."""
    if not gpus:
        return "No GPU"
    free = sum(not gpu.held_by for gpu in gpus)
    names = sorted({gpu.name for gpu in gpus})
    text = f"{free} of {len(gpus)} free · {', '.join(names)}"
    holders = sorted({holder for gpu in gpus for holder in gpu.held_by})
    shown = ", ".join(holders[:2]) + (f" and {len(holders) - 2} more" if len(holders) > 2 else "")
    return f"{text} · held by {shown}" if holders else text


def queue_text(entry: QueueEntry) -> str:
    """Return where a run stands in a host's queue."""
    if entry.position == 0:
        if not entry.devices:
            return "Holds the host"
        plural = "s" if len(entry.devices) > 1 else ""
        return f"Holds GPU{plural} {', '.join(map(str, entry.devices))}"
    ahead = entry.position - 1
    wants = f", asks for {entry.asked} device{'s' if entry.asked != 1 else ''}"
    return (f"{ahead} ahead of it" if ahead else "Next") + wants


def slurm_text(info: SlurmInfo) -> str:
    """Return what a Slurm cluster offers: its partitions with free nodes and longest job."""
    parts = [
        f"{part.name}{' (default)' if part.is_default else ''}: "
        + (f"{part.idle} of {part.nodes} nodes free, up to {part.time_limit}" if part.is_up else "down")
        + (f", {', '.join(part.gres)}" if part.gres else "")
        for part in info.partitions
    ]
    return f"Slurm {info.version} · " + " · ".join(parts)
