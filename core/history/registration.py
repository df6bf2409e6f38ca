"""Enters a run into the index from what its directory says of it: its id, its spec and its environment.

The spec is read as plain TOML, so that runs of kinds that are no longer installed still have their place.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.ids import is_run_id
from core.contracts.placement import LOCAL_NODE
from core.history import schema
from core.history.rows import fold_values, to_json
from core.runlog.fold import RunFold
from core.runlog.layout import RunLayout
from core.runlog.placements import is_elsewhere, read_placement

_ID_TIME = "%Y%m%d-%H%M%S"
_ID_TIME_LENGTH = 15


def created_of(run_dir: Path) -> float:
    """Return when a run was made, Unix seconds: from its id, which moves with the directory; else the spec's file time."""
    if is_run_id(run_dir.name):
        try:
            moment = datetime.strptime(run_dir.name[:_ID_TIME_LENGTH], _ID_TIME)
            return moment.replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass
    return RunLayout(run_dir).spec.stat().st_mtime


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Generator[tuple[str, Any]]:
    """Yield the leaves of nested tables by dotted path."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def _param_row(run: int, key: str, value: Any) -> dict[str, Any]:
    is_number = isinstance(value, (int, float))
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return {"run": run, "key": key, "text": text, "number": float(value) if is_number else None}


def _read_spec(run_dir: Path) -> tuple[str, dict[str, Any], str]:
    """Return the spec as text and as data, and a sentence on what is wrong with it."""
    path = RunLayout(run_dir).spec
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError as error:
        raise UserError(f"{str(run_dir)!r} is no run directory: it has no spec.toml.") from error
    except OSError as error:
        raise EnvironmentProblem(
            f"The spec {str(path)!r} cannot be read: {error.strerror or error}.",
            "Check the permissions of the run's folder.",
        ) from error
    try:
        return text, tomllib.loads(text), ""
    except tomllib.TOMLDecodeError as error:
        return text, {}, f"Its spec.toml is damaged: {error}."


def _host_of(run_dir: Path) -> str:
    """Return where the run is: its hosts, joined, or the machine's name; ``local`` where nothing tells."""
    placement = read_placement(run_dir)
    if placement is not None and is_elsewhere(placement):
        return ", ".join(dict.fromkeys(placed.host or LOCAL_NODE for placed in placement.nodes))
    try:
        found = json.loads(RunLayout(run_dir).environment.read_bytes())
    except (OSError, ValueError):
        return "local"
    host = found.get("host") if isinstance(found, dict) else None
    return host if isinstance(host, str) and host else "local"


def register(connection: Connection, run_dir: Path) -> int:
    """Enter a run, or renew what its spec says; return its number. What was read from its logs stays.

    A run that lay in the bin is taken out.

    Raises:
        UserError: The folder is no run directory.
        EnvironmentProblem: Its spec cannot be read.
    """
    text, spec, problem = _read_spec(run_dir)
    given = spec.get("tags")
    tags = sorted({str(tag) for tag in given}) if isinstance(given, list) else []
    values = {
        "name": str(spec.get("name") or spec.get("kind") or run_dir.name),
        "kind": str(spec.get("kind", "")),
        "tags": to_json(tags),
        "parent": str(spec.get("parent", "")),
        "host": _host_of(run_dir),
        "run_dir": str(run_dir),
        "deleted": None,
    }
    fold = RunFold(state_message=problem)
    run, is_new = _put(connection, run_dir, values, fold)
    for table in () if is_new else (schema.specs, schema.params, schema.tags):
        connection.execute(delete(table).where(table.c.run == run))
    connection.execute(insert(schema.specs), {"run": run, "toml": text})
    leaves = dict(flatten(spec))
    if leaves:
        connection.execute(insert(schema.params), [_param_row(run, key, value) for key, value in leaves.items()])
    if tags:
        connection.execute(insert(schema.tags), [{"run": run, "tag": tag} for tag in tags])
    if values["parent"]:
        edge = {"run": run, "parent": values["parent"], "child": run_dir.name, "role": "parent", "ts": 0.0}
        connection.execute(insert(schema.edges).prefix_with("OR REPLACE"), edge)
    return run


def _put(connection: Connection, run_dir: Path, values: dict[str, Any], fold: RunFold) -> tuple[int, bool]:
    """Insert or update the row of a run; return its number and whether it is new."""
    known = connection.execute(select(schema.runs.c.id).where(schema.runs.c.run_id == run_dir.name)).scalar()
    if known is not None:
        connection.execute(update(schema.runs).where(schema.runs.c.id == known).values(values))
        return known, False
    new = {**fold_values(fold), **values, "run_id": run_dir.name, "created": created_of(run_dir), "final": "{}"}
    inserted = connection.execute(insert(schema.runs).values(new)).inserted_primary_key
    if inserted is None:
        raise AssertionError("an insert has a key")
    return int(inserted[0]), True
