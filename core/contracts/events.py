"""The lines of a run's event logs: one frozen record per JSON line, told apart by ``type``.

A line is written by exactly one process (``core.runlog.emit``), read by any (``core.runlog.tail``). Unknown
fields are ignored and an unknown type is kept as ``UnknownEvent``, so that an older reader can follow a newer run.
Times are Unix seconds (UTC); a non-finite number travels as the text "nan", "inf" or "-inf", which JSON cannot say.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from core.contracts.states import RunState

EVENT_VERSION = 1

Number = float | Literal["nan", "inf", "-inf"]
Cell = str | float | bool | None


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every line carries.

    Attributes:
        seq: Position in the writer's file, from 0, without gaps; goes on over attempts.
        ts: Unix seconds at which the line was written.
        v: Version of the format.
    """

    seq: int
    ts: float
    v: int = EVENT_VERSION


class StateEvent(Event, frozen=True, kw_only=True, tag="state"):
    """The run entered a state; written by the supervisor."""

    state: RunState
    message: str = ""
    hint: str = ""


class AttemptEvent(Event, frozen=True, kw_only=True, tag="attempt"):
    """A new start of the same run. Metrics with a step after ``resumed_from_step`` supersede earlier ones."""

    attempt: int
    resumed_from_step: int | None = None


class MetricEvent(Event, frozen=True, kw_only=True, tag="metric"):
    """All scalars of one step."""

    step: int
    values: dict[str, Number]


class ProgressEvent(Event, frozen=True, kw_only=True, tag="progress"):
    """How far the run is: ``done`` from 0 to 1, a stage in the user's words, steps where they are counted."""

    done: float
    stage: str = ""
    step: int | None = None
    total_steps: int | None = None
    eta_s: float | None = None


class LogEvent(Event, frozen=True, kw_only=True, tag="log"):
    """A sentence for the run's log; ``level`` is ``info``, ``warning`` or ``error``."""

    message: str
    level: str = "info"


class ArtifactEvent(Event, frozen=True, kw_only=True, tag="artifact"):
    """A file or folder that the run made and that outlives it; ``path`` is relative to the run directory."""

    name: str
    path: str
    kind: str
    size_bytes: int
    sha256: str
    meta: dict[str, Cell] = {}


class CheckpointEvent(Event, frozen=True, kw_only=True, tag="checkpoint"):
    """A checkpoint that was written, hashed and renamed into place; ``removed`` marks its later removal."""

    step: int
    path: str
    size_bytes: int
    sha256: str
    removed: bool = False


class StabilityEvent(Event, frozen=True, kw_only=True, tag="stability"):
    """The stability guard saw something and did something about it."""

    step: int
    signal: str
    action: str
    message: str = ""


class TableEvent(Event, frozen=True, kw_only=True, tag="table"):
    """A small table of results, shown on the run's overview; a later one of the same name replaces it."""

    name: str
    columns: list[str]
    rows: list[list[Cell]]


class ResultEvent(Event, frozen=True, kw_only=True, tag="result"):
    """Final metrics of the run; merged over earlier results."""

    values: dict[str, Number]


class FailureEvent(Event, frozen=True, kw_only=True, tag="failure"):
    """Why the run failed, in a sentence, with the remedy."""

    kind: str
    message: str
    hint: str = ""
    log_line: int | None = None


class ChildEvent(Event, frozen=True, kw_only=True, tag="child"):
    """The run started another run."""

    run_id: str
    role: str = ""


class SampleEvent(Event, frozen=True, kw_only=True, tag="sample"):
    """One telemetry reading of the host: flat names such as ``cpu.percent`` or ``gpu.0.memory_used_bytes``."""

    values: dict[str, Number | None]


class NodeEvent(Event, frozen=True, kw_only=True, tag="node"):
    """A node of a run entered a state; written by the supervisors of all nodes but the head, whose states are the run's."""

    node: str
    state: RunState
    message: str = ""
    hint: str = ""


class UnknownEvent(Event, frozen=True, kw_only=True, tag="unknown"):
    """A line of a type that this version does not know."""

    original_type: str = ""


AnyEvent = (
    StateEvent
    | AttemptEvent
    | MetricEvent
    | ProgressEvent
    | LogEvent
    | ArtifactEvent
    | CheckpointEvent
    | StabilityEvent
    | TableEvent
    | ResultEvent
    | FailureEvent
    | ChildEvent
    | SampleEvent
    | NodeEvent
    | UnknownEvent
)
