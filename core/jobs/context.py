"""What a task sees of its run: the worker's side of ``core.contracts.worker.RunContext``."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from core.contracts.events import Cell
from core.contracts.ids import RunId
from core.contracts.placement import LOCAL_NODE, Placement
from core.contracts.runs import ArtifactRecord, CheckpointRecord
from core.jobs import checkpoints
from core.jobs.placed import local_placement
from core.runlog.emit import EventWriter
from core.runlog.layout import RunLayout

WORKER_RANK = "worker"
_PROGRESS_PERIOD_S = 0.25
_STOP_POLL_S = 0.05


class WorkerContext:
    """One worker process's handle on its run. Thread: the main thread; ``metric`` and ``log`` from any."""

    def __init__(
        self,
        home: Path,
        run_dir: Path,
        attempt: int,
        *,
        node: str = LOCAL_NODE,
        placement: Placement | None = None,
        writer: str = WORKER_RANK,
    ) -> None:
        self.home = home
        self.run_dir = run_dir
        self.run_id = RunId(run_dir.name)
        self.attempt = attempt
        self.stop_seen = False
        self.node = node
        self.placement = placement or local_placement(run_dir)
        self._layout = RunLayout(run_dir)
        self._writer = EventWriter(self._layout.events(writer, node))
        self._started = time.monotonic()
        self._start_fraction = 0.0
        self._eta_stage: str | None = None
        self._last_done = 0.0
        self._last_progress = ("", 0.0)
        self._pending: dict[str, object] | None = None
        self._signalled = False
        self._next_stop_poll = 0.0
        self._next_request_poll: dict[str, float] = {}

    def obey_signals(self) -> None:
        """Take SIGTERM as a request to stop; call once, on the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_signal(self, *_: object) -> None:
        self._signalled = True

    @property
    def artifacts_dir(self) -> Path:
        """``run_dir/artifacts``, made."""
        self._layout.artifacts.mkdir(exist_ok=True)
        return self._layout.artifacts

    @property
    def scratch_dir(self) -> Path:
        """``run_dir/scratch``, made."""
        self._layout.scratch.mkdir(exist_ok=True)
        return self._layout.scratch

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Record all scalars of one step."""
        self._writer.metric(step, values)

    def progress(
        self, done: float, stage: str = "", *, step: int | None = None, total_steps: int | None = None
    ) -> None:
        """Tell how far the run is; written four times a second at most, at once when the stage changes."""
        now = time.monotonic()
        done = done if math.isfinite(done) else 0.0
        eta = self._eta_s(done, stage, now)
        fields: dict[str, object] = {"done": min(max(done, 0.0), 1.0), "stage": stage, "step": step}
        fields |= {"total_steps": total_steps, "eta_s": eta}
        last_stage, last_time = self._last_progress
        if stage != last_stage:
            self._flush_progress()
        elif now - last_time < _PROGRESS_PERIOD_S and done < 1:
            self._pending = fields
            return
        self._pending = None
        self._last_progress = (stage, now)
        self._writer.write("progress", **fields)

    def _eta_s(self, done: float, stage: str, now: float) -> float | None:
        """Return the seconds left, told from where the stage began, or stages before it that it goes on from."""
        goes_back = done < self._last_done
        if goes_back or (stage != self._eta_stage and self._last_done <= 0):
            self._started, self._start_fraction = now, min(done, 1.0)
        self._eta_stage, self._last_done = stage, done
        gained = done - self._start_fraction
        return (now - self._started) * (1 - done) / gained if gained > 0.01 else None

    def _flush_progress(self) -> None:
        if self._pending is not None:
            self._writer.write("progress", **self._pending)
            self._pending = None

    def log(self, message: str, level: str = "info") -> None:
        """Write a sentence into the run's log."""
        self._writer.write("log", message=message, level=level)

    def artifact(
        self, path: Path, *, kind: str, name: str = "", meta: Mapping[str, Cell] | None = None
    ) -> ArtifactRecord:
        """Register a finished file or folder below the run directory."""
        relative = path.resolve().relative_to(self.run_dir.resolve()).as_posix()
        checkpoints.sync_path(path)
        sha256, size = checkpoints.hash_path(path)
        fields = {
            "name": name or path.name,
            "kind": kind,
            "size_bytes": size,
            "sha256": sha256,
            "meta": dict(meta or {}),
        }
        self._writer.write("artifact", path=relative, **fields)
        return ArtifactRecord(
            run_id=self.run_id,
            name=name or path.name,
            path=str(path),
            kind=kind,
            size_bytes=size,
            sha256=sha256,
            meta=dict(meta or {}),
        )

    def new_checkpoint(self, step: int) -> Path:
        """Return an empty temporary folder to write the checkpoint of ``step`` into."""
        return checkpoints.begin(self._layout.checkpoints, step)

    def commit_checkpoint(self, step: int, *, keep_last: int = 2, keep_steps: Collection[int] = ()) -> CheckpointRecord:
        """Seal the checkpoint of ``step``, record it, then remove those beyond ``keep_last``.

        One of a later step was passed over when this attempt began (it is damaged): it is removed first, so that it
        takes the place of no good one.
        """
        folder, manifest = checkpoints.commit(self._layout.checkpoints, step)
        self._write_checkpoint(folder, manifest, removed=False)
        found = checkpoints.all_checkpoints(self._layout.checkpoints)
        passed_over = [(old, old_manifest) for old, old_manifest in found if old_manifest.step > step]
        older = found[len(passed_over) :]
        beyond = [entry for entry in older[max(keep_last, 1) :] if entry[1].step not in keep_steps]
        for old, old_manifest in [*passed_over, *beyond]:
            shutil.rmtree(old)
            self._write_checkpoint(old, old_manifest, removed=True)
        return self._checkpoint_record(folder, manifest)

    def _write_checkpoint(self, folder: Path, manifest: checkpoints.Manifest, *, removed: bool) -> None:
        path = folder.relative_to(self.run_dir).as_posix()
        self._writer.write(
            "checkpoint",
            step=manifest.step,
            path=path,
            size_bytes=manifest.size_bytes,
            sha256=manifest.sha256,
            removed=removed,
        )

    def _checkpoint_record(self, folder: Path, manifest: checkpoints.Manifest) -> CheckpointRecord:
        return CheckpointRecord(
            run_id=self.run_id,
            step=manifest.step,
            path=str(folder),
            size_bytes=manifest.size_bytes,
            sha256=manifest.sha256,
            ts=manifest.ts,
        )

    def latest_checkpoint(self) -> CheckpointRecord | None:
        """Return the newest checkpoint that still hashes as recorded; damaged ones are named in the log."""
        for folder, manifest in checkpoints.all_checkpoints(self._layout.checkpoints):
            if checkpoints.is_intact(folder, manifest):
                return self._checkpoint_record(folder, manifest)
            self.log(f"The checkpoint of step {manifest.step} is damaged and was passed over.", "warning")
        return None

    def started_from(self, step: int | None) -> None:
        """Say from which step this attempt goes on."""
        self._writer.write("attempt", attempt=self.attempt, resumed_from_step=step)

    def stability(self, step: int, signal: str, action: str, message: str = "") -> None:
        """Record what the stability guard saw and did."""
        self._writer.write("stability", step=step, signal=signal, action=action, message=message)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Publish a small result table."""
        self._writer.write("table", name=name, columns=list(columns), rows=[list(row) for row in rows])

    def result(self, values: Mapping[str, float]) -> None:
        """Publish final metrics."""
        self._writer.write("result", values={key: float(value) for key, value in values.items()})

    def child(self, run_id: RunId, role: str = "") -> None:
        """Record that this run started another one."""
        self._writer.write("child", run_id=run_id, role=role)

    def failure(self, kind: str, message: str, hint: str = "") -> None:
        """Record why the run failed; for the worker's top frame."""
        self._flush_progress()
        self._writer.write("failure", kind=kind, message=message, hint=hint)

    def should_stop(self) -> bool:
        """True once a stop was asked for, by signal or by request file (looked for 20 times a second at most)."""
        now = time.monotonic()
        if not self._signalled and now >= self._next_stop_poll:
            self._next_stop_poll = now + _STOP_POLL_S
            self._signalled = self._layout.stop_request.exists()
        self.stop_seen = self.stop_seen or self._signalled
        return self._signalled

    def take_request(self, name: str) -> bool:
        """Take ``control/<name>`` away and return whether it was there (looked for 20 times a second at most)."""
        now = time.monotonic()
        if now < self._next_request_poll.get(name, 0.0):
            return False
        self._next_request_poll[name] = now + _STOP_POLL_S
        try:
            (self._layout.control / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        """Write what waits and close the log."""
        self._flush_progress()
        self._writer.close()
