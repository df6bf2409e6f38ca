"""How the form shows a field: its heading, its unit, whether it is for advanced users, and when it has a meaning."""

from __future__ import annotations

from collections.abc import Mapping


def extra(
    section: str, unit: str = "", *, advanced: bool = False, shown_if: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return the ``extra_json_schema`` of a field.

    Args:
        section: Heading in the form.
        unit: Shown behind the editor.
        advanced: Hidden until asked for.
        shown_if: The field has a meaning only then: ``{"field": path, "in": [...]}``, ``{"field": path, "above": 1}``
            or ``{"field": path, "filled": True}``; several conditions on the other field must all hold.
    """
    told: dict[str, object] = {"section": section, "unit": unit, "advanced": advanced}
    return {**told, "shown_if": dict(shown_if)} if shown_if else told
