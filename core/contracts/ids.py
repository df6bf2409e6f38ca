"""Identifiers of runs: sortable by time, readable by people, safe as a folder name on every system."""

from __future__ import annotations

import os
import re
import unicodedata
from datetime import UTC, datetime
from typing import NewType

RunId = NewType("RunId", str)

_RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9]+(?:-[a-z0-9]+)*-[0-9a-f]{6}")
_SLUG_LENGTH = 32


def new_run_id(name: str, now: datetime | None = None) -> RunId:
    """Return a fresh id such as ``20261124-061203-digits-3f9a1c`` (UTC time, slug of the name, random end)."""
    moment = now or datetime.now(UTC)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_SLUG_LENGTH].strip("-") or "run"
    return RunId(f"{moment:%Y%m%d-%H%M%S}-{slug}-{os.urandom(3).hex()}")


def is_run_id(text: str) -> bool:
    """Tell whether a folder name or an argument has the form of a run id."""
    return _RUN_ID.fullmatch(text) is not None
