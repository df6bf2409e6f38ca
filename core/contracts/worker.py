"""What the code of a run gets from us: the protocol between a task and the worker process that hosts it.

A task is ``run(spec, context) -> None``. It returns when done, raises ``UserError`` or ``EnvironmentProblem`` with a
sentence, and polls ``should_stop`` at least once a second; after a stop it saves what it wants to keep and returns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from core.contracts.events import Cell
from core.contracts.ids import RunId
from core.contracts.placement import Placement
from core.contracts.runs import ArtifactRecord, CheckpointRecord


class RunContext(Protocol):
    """One process's handle on its run. Thread: the worker's main thread, unless said otherwise."""

    @property
    def run_id(self) -> RunId:
        """Id of this run."""
        ...

    @property
    def run_dir(self) -> Path:
        """Folder of this run; the task may write below ``artifacts`` and ``scratch`` only."""
        ...

    @property
    def home(self) -> Path:
        """Pilothouse's home folder."""
        ...

    @property
    def attempt(self) -> int:
        """1 on the first start."""
        ...

    @property
    def placement(self) -> Placement:
        """All nodes of the run; one node ``local`` for a run on one machine."""
        ...

    @property
    def node(self) -> str:
        """Name of the node that this process is on."""
        ...

    @property
    def artifacts_dir(self) -> Path:
        """``run_dir/artifacts``, made."""
        ...

    @property
    def scratch_dir(self) -> Path:
        """``run_dir/scratch``, made; removed when the run succeeds."""
        ...

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Record all scalars of one step: one line, one write."""
        ...

    def progress(
        self, done: float, stage: str = "", *, step: int | None = None, total_steps: int | None = None
    ) -> None:
        """Tell how far the run is (0 to 1). Throttled to a few a second; the last call of a stage always arrives."""
        ...

    def log(self, message: str, level: str = "info") -> None:
        """Write a sentence into the run's log (``info``, ``warning`` or ``error``)."""
        ...

    def artifact(
        self, path: Path, *, kind: str, name: str = "", meta: Mapping[str, Cell] | None = None
    ) -> ArtifactRecord:
        """Register a finished file or folder below ``artifacts_dir``: it is hashed, fsynced and listed."""
        ...

    def new_checkpoint(self, step: int) -> Path:
        """Return an empty temporary folder to write the checkpoint of ``step`` into; then call ``commit_checkpoint``."""
        ...

    def commit_checkpoint(self, step: int, *, keep_last: int = 2, keep_steps: Collection[int] = ()) -> CheckpointRecord:
        """Hash, fsync and rename the folder of ``new_checkpoint`` into place, then remove older ones.

        Args:
            step: Which one; may be called from another thread than the main one.
            keep_last: The newest that stay.
            keep_steps: Steps of others that stay, such as the best.
        """
        ...

    def latest_checkpoint(self) -> CheckpointRecord | None:
        """Newest checkpoint of this run whose files still hash as recorded; damaged ones are skipped with a log line."""
        ...

    def started_from(self, step: int | None) -> None:
        """Say, before the first metric of an attempt, from which step it goes on (None: from nothing)."""
        ...

    def stability(self, step: int, signal: str, action: str, message: str = "") -> None:
        """Record that the stability guard saw ``signal`` at ``step`` and did ``action``; shown on the curves."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Publish a small result table, shown on the run's overview."""
        ...

    def result(self, values: Mapping[str, float]) -> None:
        """Publish final metrics."""
        ...

    def child(self, run_id: RunId, role: str = "") -> None:
        """Record that this run started another one."""
        ...

    def take_request(self, name: str) -> bool:
        """Return whether ``control/<name>`` was asked for since the last call, such as ``profile``. Cheap: call it every step."""
        ...

    def should_stop(self) -> bool:
        """True once a stop was asked for. Cheap: call it every step."""
        ...
