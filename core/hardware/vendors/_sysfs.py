"""GPUs as Linux shows them in files: cards on the PCI bus, their link, their sensors, whether they sleep."""

from __future__ import annotations

import re
from pathlib import Path

from core.hardware.limits import read_text

_DISPLAY_CLASSES = ("0x03", "0x12")
_SPEED = re.compile(r"([\d.]+) GT/s")
_GENERATION_BY_GT_PER_S = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}


def cards(vendor_id: str, bus: Path = Path("/sys/bus/pci/devices")) -> list[Path]:
    """Return the folders of a vendor's display controllers and accelerators (such as of ``0x10de``), in bus order."""
    folders = [file.parent for file in sorted(bus.glob("*/vendor")) if read_text(file).strip() == vendor_id]
    return [folder for folder in folders if read_text(folder / "class").startswith(_DISPLAY_CLASSES)]


def number(path: Path, scale: float = 1.0) -> float | None:
    """Return the number in a file times ``scale``; None where it cannot be read or is none."""
    try:
        return float(read_text(path)) * scale
    except ValueError:
        return None


def is_asleep(card: Path) -> bool:
    """Tell whether the system has switched a card off; reading its sensors would wake it."""
    return read_text(card / "power" / "runtime_status").strip() == "suspended"


def sensors(card: Path) -> Path:
    """Return the folder of a card's sensors, which may not exist."""
    return next(iter(sorted(card.glob("hwmon/hwmon*"))), card / "hwmon")


def temperature_files(hwmon: Path) -> dict[str, Path]:
    """Return the temperature files (in thousandths of °C) by label, such as ``edge`` or ``mem``."""
    labels = hwmon.glob("temp*_label")
    return {read_text(label).strip(): label.with_name(label.name.replace("label", "input")) for label in labels}


def link_generation(card: Path, name: str) -> int | None:
    """Return the PCIe generation in ``current_link_speed`` or ``max_link_speed``."""
    speed = _SPEED.match(read_text(card / name))
    return _GENERATION_BY_GT_PER_S.get(float(speed[1])) if speed else None


def link_width(card: Path, name: str) -> int | None:
    """Return the lanes in ``current_link_width`` or ``max_link_width``."""
    width = number(card / name)
    return None if width is None else int(width)
