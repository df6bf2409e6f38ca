"""The folder of files shipped with Pilothouse: icons, themes, example specs, templates."""

from __future__ import annotations

from pathlib import Path

import core


def resources_dir() -> Path:
    """Return the ``resources`` folder, beside the packages in a checkout and in an installed package alike."""
    return Path(core.__path__[0]).resolve().parent / "resources"


def examples_dir() -> Path:
    """Return the folder of example specs."""
    return resources_dir() / "examples"
