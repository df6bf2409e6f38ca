"""Reads and writes the settings file, atomically; a damaged file is set aside, never fatal."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import tomli_w

from core.contracts.notices import Notice, Severity
from core.contracts.settings import Settings


def load_settings(path: Path) -> tuple[Settings, Notice | None]:
    """Return the settings, and a notice when the file was damaged and set aside."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Settings), None
    except FileNotFoundError:
        return Settings(), None
    except (OSError, ValueError, msgspec.ValidationError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        try:
            path.replace(aside)
        except OSError:
            aside = path
        notice = Notice(
            severity=Severity.WARNING,
            message=f"The settings could not be read ({error}), so the defaults are in use.",
            hint=f"The old file is kept as {str(aside)!r}.",
        )
        return Settings(), notice


def save_settings(path: Path, settings: Settings) -> None:
    """Write the settings.

    Raises:
        OSError: The file cannot be written; the old one is intact.
    """
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(tomli_w.dumps(msgspec.to_builtins(settings)), encoding="utf-8")
    partial.replace(path)
