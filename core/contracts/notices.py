"""Messages to the user as records: one sentence, its weight, and the remedy as an action the view can offer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.contracts.ids import RunId


class Severity(StrEnum):
    """How much a notice matters."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message.

    Attributes:
        severity: How it is drawn and how long it stays.
        message: One sentence.
        hint: The remedy as a sentence; may be empty.
        run_id: The run it concerns, so that the view can offer to open it.
        details: Text behind a "Details" button, such as a traceback; may be empty.
    """

    severity: Severity
    message: str
    hint: str = ""
    run_id: RunId | None = None
    details: str = ""
