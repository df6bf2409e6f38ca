"""How the form shows a field: its heading, its unit, and whether it is for advanced users."""

from __future__ import annotations


def extra(section: str, unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    """Return the ``extra_json_schema`` of a field: its heading in the form, its unit, and whether it is advanced."""
    return {"section": section, "unit": unit, "advanced": advanced}
