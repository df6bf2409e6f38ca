"""Looks on the PCI bus for display and compute cards, to tell "no such GPU" from "its driver is missing" (Linux)."""

from __future__ import annotations

from pathlib import Path

_DISPLAY_CLASSES = ("0x03", "0x12")


def count_cards(vendor_id: str, bus: Path = Path("/sys/bus/pci/devices")) -> int:
    """Return how many display controllers and accelerators of a vendor (such as ``0x10de``) are on the bus; 0 if unknown."""
    count = 0
    for vendor_file in bus.glob("*/vendor"):
        try:
            is_vendor = vendor_file.read_text(encoding="ascii").strip() == vendor_id
            is_display = vendor_file.with_name("class").read_text(encoding="ascii").startswith(_DISPLAY_CLASSES)
        except OSError:
            continue
        count += is_vendor and is_display
    return count
