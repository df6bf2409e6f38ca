"""A ``RunContext`` in the test's own process: it keeps what a task reported and does real checkpoints on disk."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from core.contracts.events import Cell
from core.contracts.ids import RunId
from core.contracts.placement import LOCAL_NODE, Placement
from core.contracts.runs import ArtifactRecord, CheckpointRecord, TableRecord
from core.contracts.worker import RunContext
from core.jobs.placed import local_placement
from core.runlog.layout import RunLayout


def _digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


class RecordingContext:
    """Records metrics, logs, artifacts, tables and results; stops when ``stop_when`` says so.

    Attributes:
        metrics: ``(step, values)`` in the order reported.
        stop_when: Asked at every ``should_stop``; set it to interrupt a task at a chosen moment.
    """

    def __init__(self, home: Path, run_id: str = "20260101-000000-test-abcdef", attempt: int = 1) -> None:
        self._home = home
        self._run_id = RunId(run_id)
        self._attempt = attempt
        self.layout = RunLayout(home / "runs" / run_id)
        for folder in (self.layout.artifacts, self.layout.scratch, self.layout.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.progresses: list[tuple[float, str]] = []
        self.logs: list[tuple[str, str]] = []
        self.artifacts: dict[str, ArtifactRecord] = {}
        self.checkpoints: list[CheckpointRecord] = []
        self.tables: dict[str, TableRecord] = {}
        self.results: dict[str, float] = {}
        self.children: list[tuple[RunId, str]] = []
        self.resumed_from: list[int | None] = []
        self.stabilities: list[tuple[int, str, str, str]] = []
        self.requests: set[str] = set()
        self.stop_when: Callable[[], bool] = lambda: False

    @property
    def run_id(self) -> RunId:
        return self._run_id

    @property
    def run_dir(self) -> Path:
        return self.layout.run_dir

    @property
    def home(self) -> Path:
        return self._home

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def placement(self) -> Placement:
        return local_placement(self.layout.run_dir)

    @property
    def node(self) -> str:
        return LOCAL_NODE

    @property
    def artifacts_dir(self) -> Path:
        return self.layout.artifacts

    @property
    def scratch_dir(self) -> Path:
        return self.layout.scratch

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        self.metrics.append((step, dict(values)))

    def progress(
        self, done: float, stage: str = "", *, step: int | None = None, total_steps: int | None = None
    ) -> None:
        del step, total_steps
        assert 0.0 <= done <= 1.0
        self.progresses.append((done, stage))

    def log(self, message: str, level: str = "info") -> None:
        self.logs.append((level, message))

    def artifact(
        self, path: Path, *, kind: str, name: str = "", meta: Mapping[str, Cell] | None = None
    ) -> ArtifactRecord:
        assert path.resolve().is_relative_to(self.artifacts_dir.resolve()), path
        record = ArtifactRecord(
            run_id=self._run_id,
            name=name or path.name,
            path=str(path),
            kind=kind,
            size_bytes=_size(path),
            sha256=_digest(path),
            meta=dict(meta or {}),
        )
        self.artifacts[kind] = record
        return record

    def _temporary(self, step: int) -> Path:
        return self.layout.checkpoints / f".writing-{step}"

    def new_checkpoint(self, step: int) -> Path:
        folder = self._temporary(step)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commit_checkpoint(self, step: int, *, keep_last: int = 2, keep_steps: Collection[int] = ()) -> CheckpointRecord:
        folder = self._temporary(step)
        final = self.layout.checkpoints / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        record = CheckpointRecord(
            run_id=self._run_id,
            step=step,
            path=str(final),
            size_bytes=_size(final),
            sha256=_digest(final),
            ts=time.time(),
        )
        self.checkpoints = [c for c in self.checkpoints if c.step != step] + [record]
        beyond = [old for old in self.checkpoints[:-keep_last] if old.step not in keep_steps]
        for old in beyond:
            shutil.rmtree(old.path)
        self.checkpoints = [kept for kept in self.checkpoints if kept not in beyond]
        return record

    def latest_checkpoint(self) -> CheckpointRecord | None:
        for record in reversed(self.checkpoints):
            if Path(record.path).is_dir() and _digest(Path(record.path)) == record.sha256:
                return record
            self.log(f"Checkpoint {record.step} is damaged.", "warning")
        return None

    def started_from(self, step: int | None) -> None:
        self.resumed_from.append(step)

    def stability(self, step: int, signal: str, action: str, message: str = "") -> None:
        self.stabilities.append((step, signal, action, message))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        assert all(len(row) == len(columns) for row in rows)
        self.tables[name] = TableRecord(name=name, columns=tuple(columns), rows=tuple(tuple(row) for row in rows))

    def result(self, values: Mapping[str, float]) -> None:
        self.results.update(values)

    def child(self, run_id: RunId, role: str = "") -> None:
        self.children.append((run_id, role))

    def take_request(self, name: str) -> bool:
        if name not in self.requests:
            return False
        self.requests.remove(name)
        return True

    def should_stop(self) -> bool:
        return self.stop_when()

    def next_attempt(self) -> RecordingContext:
        """Return a fresh recorder of the same run: what a resume gets, with the checkpoints that are on the disk."""
        following = RecordingContext(self._home, self._run_id, self._attempt + 1)
        following.checkpoints = list(self.checkpoints)
        return following

    def stop_after(self, step: int, key: str = "train/loss") -> None:
        """Ask the task to stop once it has reported ``key`` for ``step``."""
        self.stop_when = lambda: any(done >= step for done, _ in self.curve(key))

    def curve(self, key: str) -> list[tuple[int, float]]:
        """Return the points of one metric."""
        return [(step, values[key]) for step, values in self.metrics if key in values]


def as_context(context: RecordingContext) -> RunContext:
    """Return the recorder as the protocol; the type checker proves that it follows it."""
    return context
