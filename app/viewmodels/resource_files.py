"""Where the files of the look lie (icons, theme glyphs, fonts), for views, which know no paths of their own."""

from __future__ import annotations

from pathlib import Path

from core.settings.resources import resources_dir


def icon_file(name: str) -> Path:
    """Return the SVG of an icon; the file may be missing when a third party names an unknown icon."""
    return resources_dir() / "icons" / f"{name}.svg"


def theme_file(name: str) -> Path:
    """Return an SVG that the style sheet refers to."""
    return resources_dir() / "themes" / f"{name}.svg"


def font_files() -> list[Path]:
    """Return the bundled font files (Inter, SIL Open Font License)."""
    return sorted((resources_dir() / "fonts").glob("*.otf"))
