"""What the history knows of a run, as the records that views, command line and exports share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.contracts.events import Cell
from core.contracts.ids import RunId
from core.contracts.states import RunState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRecord:
    """A file or folder that a run made; ``path`` is absolute."""

    run_id: RunId
    name: str
    path: str
    kind: str
    size_bytes: int
    sha256: str
    meta: dict[str, Cell] = field(default_factory=dict[str, Cell])


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint of a run; ``path`` is absolute."""

    run_id: RunId
    step: int
    path: str
    size_bytes: int
    sha256: str
    ts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRecord:
    """A small table of results."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerRecord:
    """Something to mark on the time axis of a curve: a checkpoint, a restart, a stability event.

    Attributes:
        kind: ``checkpoint``, ``restart`` or ``stability``.
        step: Training step, where known.
        ts: Unix seconds.
        text: Tooltip; of a stability event the reason.
        signal: What the stability guard saw, such as ``loss_spike``; empty for other kinds.
        action: What it did about it, such as ``roll-back``.
    """

    kind: str
    step: int | None
    ts: float
    text: str
    signal: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One row of the run table, and the head of the run's page.

    Attributes:
        message: One sentence about the state (why it failed, what it does); may be empty.
        hint: The remedy; may be empty.
        created: Unix seconds; ``started`` and ``ended`` likewise, None before they happen.
        progress: 0 to 1, None where the run does not tell.
        stage: What it is doing, in the user's words.
        final: Final metrics, or the latest value of each metric while it runs.
        silent_since: Unix seconds of the last sign of life when an open run is not answering; else None.
        host: Name of the host it runs on.
        attempt: 1 for the first start; resumes count up.
        last_line: Last meaningful line of its log.
    """

    run_id: RunId
    name: str
    kind: str
    state: RunState
    message: str = ""
    hint: str = ""
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    progress: float | None = None
    stage: str = ""
    step: int | None = None
    total_steps: int | None = None
    eta_s: float | None = None
    final: dict[str, float] = field(default_factory=dict[str, float])
    tags: tuple[str, ...] = ()
    parent: RunId | None = None
    host: str = "local"
    attempt: int = 1
    silent_since: float | None = None
    run_dir: str = ""
    last_line: str = ""

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end, None before the start or while it runs."""
        if self.started is None or self.ended is None:
            return None
        return self.ended - self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """Everything but the curves and the log of one run."""

    summary: RunSummary
    spec_toml: str
    artifacts: tuple[ArtifactRecord, ...]
    checkpoints: tuple[CheckpointRecord, ...]
    tables: tuple[TableRecord, ...]
    markers: tuple[MarkerRecord, ...]
    children: tuple[RunId, ...]
    metric_keys: tuple[str, ...]
    telemetry_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """What the run table asks for. ``text`` matches name, id, tags and kind; ``sort`` is a column or ``metric:KEY``."""

    text: str = ""
    states: tuple[RunState, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    parent: RunId | None = None
    sort: str = "created"
    descending: bool = True
    offset: int = 0
    limit: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """A page of the run table and the number of runs that match in all."""

    rows: tuple[RunSummary, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Points of one metric, exact or decimated to extremes.

    Attributes:
        key: Metric name, such as ``train/loss``, or a telemetry name such as ``cpu.percent``.
        step: Training steps, int64, shape (n,); for telemetry, the sample's number.
        ts: Unix seconds, float64, shape (n,).
        value: float64, shape (n,); may hold NaN and infinities.
        total: Points stored in all within the asked range, of which these n are the extremes.
    """

    key: str
    step: NDArray[np.int64]
    ts: NDArray[np.float64]
    value: NDArray[np.float64]
    total: int

    @property
    def is_exact(self) -> bool:
        """True when no point was left out."""
        return len(self.value) == self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Text of a run's output from a byte offset; ``end`` is where to read on, ``total`` the size now."""

    text: str
    start: int
    end: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUpdate:
    """What one read of a live run brought: its new summary and the new points of each curve.

    Attributes:
        summary: The run as it stands after this update.
        points: New points by key, in order; exact, never decimated.
        truncated_at: Step at and after which older points of training metrics are void (a restart), else None.
        detail_changed: True when artifacts, checkpoints, tables, markers or children changed.
        log_size_bytes: Size of its output now.
    """

    summary: RunSummary
    points: dict[str, Curve] = field(default_factory=dict[str, "Curve"])
    truncated_at: int | None = None
    detail_changed: bool = False
    log_size_bytes: int = 0
