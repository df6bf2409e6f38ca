"""The numbers and colours of the look as records; imports no Qt, so that anything may read them.

Contrast: text on its background is at least 4.5 to 1, faint text and icons at least 3 to 1. The curve palettes are
chosen to stay apart for the common forms of colour blindness (after Okabe and Ito, and Tol).
"""

from __future__ import annotations

from dataclasses import dataclass

UI_FAMILIES = [
    "Inter",
    "Segoe UI Variable Text",
    "Segoe UI",
    "SF Pro Text",
    "Noto Sans",
    "Noto Sans CJK SC",
    "DejaVu Sans",
]
MONO_FAMILIES = [
    "JetBrains Mono",
    "Cascadia Mono",
    "SF Mono",
    "Menlo",
    "Consolas",
    "Noto Sans Mono",
    "DejaVu Sans Mono",
]


@dataclass(frozen=True, slots=True)
class Space:
    """Distances on the 8-pixel grid, in device-independent pixels; the half step is for what belongs together."""

    xs: int = 4
    s: int = 8
    m: int = 16
    l: int = 24  # noqa: E741 - the sizes read as sizes
    xl: int = 32
    xxl: int = 48
    radius: int = 8
    radius_small: int = 6
    control_height: int = 32


SPACE = Space()


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours of one mode, as ``#RRGGBB``.

    Attributes:
        background: Behind pages; ``surface`` is a card on it, ``raised`` a menu or toast, ``sunken`` a well.
        curves: Colours of curves, in the order in which they are given out; repeat when used up.
        heat: Colours of a heat map from idle to full.
    """

    name: str
    is_dark: bool
    background: str
    surface: str
    raised: str
    sunken: str
    rail: str
    hover: str
    pressed: str
    border: str
    border_strong: str
    text: str
    text_muted: str
    text_faint: str
    accent: str
    accent_hover: str
    accent_pressed: str
    accent_soft: str
    on_accent: str
    success: str
    success_soft: str
    warning: str
    warning_soft: str
    danger: str
    danger_hover: str
    danger_soft: str
    info: str
    info_soft: str
    plot_background: str
    plot_grid: str
    plot_axis: str
    curves: tuple[str, ...]
    heat: tuple[str, ...]

    def curve(self, index: int) -> str:
        """Return the colour of the curve number ``index``."""
        return self.curves[index % len(self.curves)]


LIGHT = Theme(
    name="light",
    is_dark=False,
    background="#F5F6F9",
    surface="#FFFFFF",
    raised="#FFFFFF",
    sunken="#EFF1F5",
    rail="#FBFBFD",
    hover="#EDF0F5",
    pressed="#E3E7EE",
    border="#E1E5EC",
    border_strong="#C6CCD8",
    text="#161B26",
    text_muted="#566072",
    text_faint="#7D8799",
    accent="#3563E9",
    accent_hover="#2B54CC",
    accent_pressed="#2346AE",
    accent_soft="#E9EFFE",
    on_accent="#FFFFFF",
    success="#17794A",
    success_soft="#E3F4EA",
    warning="#9A5B00",
    warning_soft="#FDF1DC",
    danger="#C42B3A",
    danger_hover="#A8202E",
    danger_soft="#FCE8EA",
    info="#0B6E99",
    info_soft="#E2F2F8",
    plot_background="#FFFFFF",
    plot_grid="#E9ECF1",
    plot_axis="#566072",
    curves=("#0072B2", "#D55E00", "#009E73", "#AA3377", "#B98300", "#3D9BD4", "#5E4FA2", "#6B6F76"),
    heat=("#EDF1F7", "#CFE0FB", "#93B7F6", "#5A86EE", "#2F55C9", "#1E3A94"),
)

DARK = Theme(
    name="dark",
    is_dark=True,
    background="#0F1218",
    surface="#171B23",
    raised="#1F2530",
    sunken="#12151C",
    rail="#12161D",
    hover="#212733",
    pressed="#2A3140",
    border="#272E3A",
    border_strong="#3B4454",
    text="#E9ECF2",
    text_muted="#A0A9BA",
    text_faint="#737D90",
    accent="#7096FF",
    accent_hover="#8AA9FF",
    accent_pressed="#5C84F2",
    accent_soft="#1D2947",
    on_accent="#0B1020",
    success="#4CC38A",
    success_soft="#15302A",
    warning="#F0B354",
    warning_soft="#372A14",
    danger="#FF7A82",
    danger_hover="#FF949B",
    danger_soft="#3B1D24",
    info="#5CC1E6",
    info_soft="#142D3A",
    plot_background="#171B23",
    plot_grid="#262D39",
    plot_axis="#A0A9BA",
    curves=("#56B4E9", "#FF9248", "#3CCB9B", "#F08CC0", "#E8D44D", "#9DB2FF", "#C7A0F2", "#B4BBC8"),
    heat=("#1B212B", "#1F3157", "#29479A", "#3F68D6", "#6E95FF", "#B4C8FF"),
)
