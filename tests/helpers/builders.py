"""Builds real run directories, by the thousands if wanted, and histories over them.

A built directory is what a worker and a supervisor would have left: spec, event logs, telemetry, output, exit record.
Lines are written in blocks rather than one ``write`` each, in the very form of ``core.runlog.emit``. A run that is to
look alive is supervised by the process that built it, for as long as that lives.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomli_w
from numpy.typing import NDArray
from sqlalchemy import insert

from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.history import schema
from core.history.database import Database
from core.history.history import History
from core.history.rows import final_to_json, fold_values, to_json
from core.jobs.identity import own_identity
from core.jobs.records import ExitRecord, SupervisorRecord
from core.plugins.decode import decode_spec, encode_spec
from core.runlog.fold import RunFold
from core.runlog.layout import RunLayout

EPOCH = 1_790_000_000.0
"""Unix seconds at which built runs begin unless said otherwise."""
DEFAULT_METRICS = ("train/loss", "train/accuracy", "lr")
_BLOCK = 20_000
_ENDS = {
    RunState.SUCCEEDED: ("", "", 0),
    RunState.FAILED: ("The device ran out of memory.", "Halve the batch size, or use a smaller model.", 1),
    RunState.STOPPED: ("Stopped on request.", "", 75),
}


@cache
def _defaults(kind: str) -> Mapping[str, Any]:
    """Return the complete spec of a kind; the bare one where the kind needs more than a name or is not installed."""
    try:
        return tomllib.loads(encode_spec(decode_spec({"kind": kind})))
    except Exception:
        return {"kind": kind}


def run_id_at(created: float, name: str, number: int) -> RunId:
    """Return a run id made from a time, a name and a number."""
    slug = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split())[:32].strip("-")
    return RunId(f"{datetime.fromtimestamp(created, UTC):%Y%m%d-%H%M%S}-{slug or 'run'}-{number % (1 << 24):06x}")


def series(key: str, steps: int, seed: int = 0) -> NDArray[np.float64]:
    """Return plausible values of a metric: falling losses, rising accuracies, a cosine for the learning rate."""
    rng = np.random.default_rng([seed, *key.encode()])
    x = np.arange(steps) / max(steps - 1, 1)
    noise = rng.normal(0.0, 0.03, steps)
    if "loss" in key:
        return 2.3 * np.exp(-4.0 * x) * (1.0 + noise) + 0.08 + 0.02 * rng.random(steps)
    if "acc" in key:
        return np.clip(0.97 - 0.87 * np.exp(-6.0 * x) + noise / 3, 0.0, 1.0)
    if key.endswith("lr"):
        return 5e-4 * (1.0 + np.cos(math.pi * x))
    return np.cumsum(rng.normal(0.0, 1.0, steps))


def metric_lines(
    columns: Mapping[str, NDArray[np.float64]],
    *,
    first_step: int = 0,
    first_seq: int = 0,
    start: float = EPOCH,
    step_time_s: float = 0.05,
) -> Iterator[str]:
    """Yield blocks of metric lines, one line a step with all columns."""
    total = len(next(iter(columns.values())))
    names = [json.dumps(key) for key in columns]
    form = "{" + ",".join(f"{name}:%s" for name in names).replace("{", "{{") + "}"
    for at in range(0, total, _BLOCK):
        table = zip(*(_texts(column[at : at + _BLOCK]) for column in columns.values()), strict=True)
        lines = [
            f'{{"v":1,"seq":{first_seq + number},"ts":{start + number * step_time_s:.6f},"type":"metric",'
            f'"step":{first_step + number},"values":{form % row}}}\n'
            for number, row in enumerate(table, start=at)
        ]
        yield "".join(lines)


def _texts(values: NDArray[np.float64]) -> list[str]:
    return [repr(v) if math.isfinite(v) else ('"nan"' if math.isnan(v) else f'"{v}"') for v in values.tolist()]


class LogFile:
    """An event log that is written event by event, with the times the caller says."""

    def __init__(self, path: Path, ts: float = EPOCH) -> None:
        self.path = path
        self.seq = 0
        self.ts = ts

    def write(self, event_type: str, ts: float | None = None, **fields: Any) -> None:
        """Append one event; without a time, a second after the one before."""
        self.ts = self.ts + 1.0 if ts is None else ts
        self._append(json.dumps({"v": 1, "seq": self.seq, "ts": self.ts, "type": event_type, **fields}) + "\n")
        self.seq += 1

    def metrics(
        self, columns: Mapping[str, NDArray[np.float64]], first_step: int = 0, step_time_s: float = 0.05
    ) -> None:
        """Append one metric event a step."""
        place = {"first_step": first_step, "first_seq": self.seq, "start": self.ts + step_time_s}
        for block in metric_lines(columns, **place, step_time_s=step_time_s):
            self._append(block)
        total = len(next(iter(columns.values())))
        self.seq += total
        self.ts += total * step_time_s

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


def new_run_dir(
    home: Path,
    *,
    name: str = "digits",
    kind: str = "train.image",
    tags: Sequence[str] = (),
    parent: str = "",
    created: float = EPOCH,
    number: int = 0,
    spec: Mapping[str, Any] | None = None,
) -> Path:
    """Make a run directory that holds its spec alone."""
    run_dir = home / "runs" / run_id_at(created, name, number)
    run_dir.mkdir(parents=True)
    asked = {**_defaults(kind), "name": name, "tags": list(tags), "parent": parent, **(spec or {})}
    RunLayout(run_dir).spec.write_text(tomli_w.dumps(asked), encoding="utf-8")
    return run_dir


def build_run(
    home: Path,
    *,
    name: str = "digits",
    steps: int = 200,
    metrics: Sequence[str] | Mapping[str, NDArray[np.float64]] = DEFAULT_METRICS,
    state: RunState = RunState.SUCCEEDED,
    kind: str = "train.image",
    tags: Sequence[str] = (),
    parent: str = "",
    created: float = EPOCH,
    number: int = 0,
    seed: int = 0,
    step_time_s: float = 0.05,
    spec: Mapping[str, Any] | None = None,
    telemetry: bool = True,
    checkpoints: bool = True,
) -> Path:
    """Write a whole run directory and return it.

    Args:
        home: Home folder; the run lies in its ``runs``.
        name: Shown in the history.
        steps: Number of metric events; a million takes some 10 s.
        metrics: Names (values are then made up) or the values themselves.
        state: How it ended, or an open state, in which the building process is its supervisor.
        kind: Tag of its spec.
        tags: Labels.
        parent: Run it builds on.
        created: Unix seconds.
        number: Tells apart runs of one name and second.
        seed: Of the values.
        step_time_s: Seconds between steps.
        spec: Values that replace those of the spec.
        telemetry: Whether it has a telemetry log, a sample every two seconds, 3600 at most.
        checkpoints: Whether it names three checkpoints and an artifact (their files are not made).
    """
    run_dir = new_run_dir(
        home, name=name, kind=kind, tags=tags, parent=parent, created=created, number=number, spec=spec
    )
    columns = metrics if isinstance(metrics, Mapping) else {key: series(key, steps, seed) for key in metrics}
    ended = created + 3.0 + steps * step_time_s
    _write_worker_log(run_dir, columns, state, created + 2.0, step_time_s, checkpoints=checkpoints)
    _write_supervisor(run_dir, state, created, ended)
    if telemetry:
        _write_telemetry(run_dir, created + 2.0, ended, seed)
    lines = [f"step {step}: saved" for step in range(0, steps, max(steps // 10, 1))]
    RunLayout(run_dir).stdout().write_text("\n".join([f"{name} starts", *lines, ""]), encoding="utf-8")
    return run_dir


def _write_worker_log(
    run_dir: Path,
    columns: Mapping[str, NDArray[np.float64]],
    state: RunState,
    start: float,
    step_time_s: float,
    *,
    checkpoints: bool,
) -> None:
    log = LogFile(RunLayout(run_dir).events("worker"), start)
    steps = len(next(iter(columns.values()), ()))
    log.write("attempt", start, attempt=1, resumed_from_step=None)
    if columns:
        log.metrics(columns, step_time_s=step_time_s)
    done = 1.0 if state is RunState.SUCCEEDED else 0.6
    log.write("progress", log.ts, done=done, stage="Training", step=steps, total_steps=int(steps / done), eta_s=60.0)
    for number in (1, 2, 3) if checkpoints and steps >= 3 else ():
        step = steps * number // 3
        fields = {"step": step, "path": f"checkpoints/step-{step}", "size_bytes": 1 << 20, "sha256": f"{number:064x}"}
        log.write("checkpoint", start + step * step_time_s, **fields)
    log.write("log", log.ts, message=f"Saved after {steps} steps.", level="info")
    if state is RunState.SUCCEEDED:
        if checkpoints:
            fields = {"name": "model", "path": "artifacts/model", "kind": "model", "size_bytes": 3 << 20}
            log.write("artifact", log.ts, **fields, sha256="a" * 64, meta={"parameters": 1_200_000})
        log.write("result", log.ts, values={f"final/{key}": float(column[-1]) for key, column in columns.items()})
    if state is RunState.FAILED:
        message, hint, _ = _ENDS[state]
        log.write("failure", log.ts, kind="out_of_memory", message=message, hint=hint)


def _write_supervisor(run_dir: Path, state: RunState, created: float, ended: float) -> None:
    layout = RunLayout(run_dir)
    log = LogFile(layout.events("supervisor"), created)
    log.write("state", created + 0.5, state="preparing", message="", hint="")
    log.write("state", created + 1.0, state="running", message="", hint="")
    identity = own_identity()
    if state in _ENDS:
        message, hint, code = _ENDS[state]
        log.write("state", ended, state=state.value, message=message, hint=hint)
        record = ExitRecord(state=state, message=message, hint=hint, code=code, started=created + 0.5, ended=ended)
        layout.exit_record().write_bytes(msgspec.json.encode(record))
    elif state is RunState.LOST:
        identity = msgspec.structs.replace(identity, boot_id="an-earlier-boot")
    elif state is not RunState.RUNNING:
        log.write("state", ended, state=state.value, message="", hint="")
    supervisor = SupervisorRecord(identity=identity, node="local", attempt=1, started=created + 0.5)
    layout.supervisor().write_bytes(msgspec.json.encode(supervisor))


def _write_telemetry(run_dir: Path, start: float, end: float, seed: int) -> None:
    count = int(min(max((end - start) / 2.0, 2), 3600))
    rng = np.random.default_rng(seed)
    cpu = np.clip(60 + np.cumsum(rng.normal(0, 2, count)), 0, 100).tolist()
    memory = (4e9 + np.cumsum(rng.normal(1e6, 1e6, count))).tolist()
    lines = [
        json.dumps(
            {
                "v": 1,
                "seq": number,
                "ts": start + (end - start) * number / count,
                "type": "sample",
                "values": {"cpu.percent": cpu[number], "memory.used_bytes": memory[number]},
            }
        )
        for number in range(count)
    ]
    RunLayout(run_dir).telemetry().write_text("\n".join(lines) + "\n", encoding="utf-8")


_NAMES = ("digits", "tiny-lm", "resnet-cifar", "river-forecast", "fraud-tabular", "speech-keywords", "mobilenet", "ocr")
_TAGS = ("baseline", "nightly", "paper", "ablation", "quantized")
_KINDS = ("train.image", "train.language", "train.script", "compress.int8")
_STATES = (*[RunState.SUCCEEDED] * 7, RunState.FAILED, RunState.STOPPED, RunState.LOST)


def _traits(number: int, runs: int) -> dict[str, Any]:
    """Return name, kind, tags, state and time of the n-th of many runs, the last of them the newest."""
    rng = np.random.default_rng(number)
    name = f"{_NAMES[int(rng.integers(len(_NAMES)))]}-{number}"
    tags = [tag for tag in _TAGS if rng.random() < 0.15]
    kind = _KINDS[int(rng.choice(len(_KINDS), p=[0.5, 0.2, 0.15, 0.15]))]
    state = _STATES[int(rng.integers(len(_STATES)))]
    return {
        "name": name,
        "kind": kind,
        "tags": tags,
        "state": state,
        "created": EPOCH - 400.0 * (runs - number),
        "number": number,
    }


def build_history(
    home: Path, runs: int = 10_000, *, steps: int = 30, on_progress: Callable[[int], None] | None = None
) -> None:
    """Write many run directories and index them through the public interface; some 8 ms a run."""
    made = [
        build_run(home, **_traits(number, runs), steps=steps, seed=number, telemetry=False) for number in range(runs)
    ]
    history = History.open(home / "history.sqlite")
    problems = history.index(made, on_progress)
    history.mark_indexed()
    history.close()
    assert not problems, problems


def fill_history(database: Path, runs: int = 100_000, *, metrics: int = 10, params: int = 20) -> None:
    """Fill an index with runs that have no directories, straight into its tables: for timing queries over very many."""
    opened = Database(database)
    with opened.write() as connection:
        for at in range(0, runs, 5000):
            rows = [_bulk_rows(number, runs, metrics, params) for number in range(at, min(at + 5000, runs))]
            for table, part in (
                (schema.runs, [row[0] for row in rows]),
                (schema.metrics, [item for row in rows for item in row[1]]),
                (schema.params, [item for row in rows for item in row[2]]),
                (schema.tags, [item for row in rows for item in row[3]]),
            ):
                connection.execute(insert(table), part)
        connection.exec_driver_sql("ANALYZE")
    opened.close()


def _bulk_rows(number: int, runs: int, metrics: int, params: int) -> tuple[dict[str, Any], ...]:
    traits = _traits(number, runs)
    rng = np.random.default_rng(number)
    created = traits["created"]
    fold = RunFold(state=traits["state"], started=created + 1.0, ended=created + float(rng.exponential(3600.0)))
    final = {f"metric/{key}": float(value) for key, value in enumerate(rng.normal(size=metrics))}
    row = {
        **fold_values(fold),
        "id": number + 1,
        "run_id": run_id_at(created, traits["name"], number),
        "name": traits["name"],
        "kind": traits["kind"],
        "created": created,
        "tags": to_json(sorted(traits["tags"])),
        "parent": "",
        "host": "local",
        "run_dir": f"/runs/{number}",
        "final": final_to_json(final),
    }
    metric_rows = [{"run": number + 1, "key": key, "value": value} for key, value in final.items()]
    values = rng.integers(0, 50, size=params).tolist()
    param_rows = [
        {"run": number + 1, "key": f"param.{key}", "text": str(value), "number": float(value)}
        for key, value in enumerate(values)
    ]
    tag_rows = [{"run": number + 1, "tag": tag} for tag in traits["tags"]]
    return row, metric_rows, param_rows, tag_rows
