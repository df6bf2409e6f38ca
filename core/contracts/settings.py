"""What the user set, as one frozen record with defaults; kept as TOML in the home folder."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ThemeMode = Literal["system", "light", "dark"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Unknown fields of a newer version are ignored when read.

    Attributes:
        window_geometry: Base64 of the window's geometry; empty for the default.
        last_page: Name of the page shown last.
    """

    theme: Annotated[ThemeMode, Meta(title="Theme", description="Light, dark, or as the system says.")] = "system"
    notify_on_end: Annotated[
        bool, Meta(title="Notify when a run ends", description="Shows a desktop notification.")
    ] = True
    smoothing: Annotated[
        float, Meta(title="Curve smoothing", ge=0, lt=1, description="Debiased moving average; 0 is off.")
    ] = 0.0
    window_geometry: str = ""
    last_page: str = ""
