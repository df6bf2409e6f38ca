"""What a run is expected to need before it is launched; computed by its kind, compared with the device by the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_TIGHT_SHARE = 0.85
"""An estimate knows nothing of fragments, of the libraries' own room and of peaks within a layer."""


class MemoryFit(StrEnum):
    """How an estimate compares with the device."""

    FITS = "fits"
    TIGHT = "tight"
    TOO_LARGE = "too large"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPart:
    """What one component takes on the fullest rank, in bytes."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Memory of the fullest rank by component, and what its device has.

    Attributes:
        parts: Components, the stored ones first.
        basis: What it was computed from and what it leaves out, as a sentence.
        device: Name of the device in words; empty where none is known.
        device_bytes: What the device has for one rank; None where that is not known.
    """

    parts: tuple[MemoryPart, ...]
    basis: str
    device: str = ""
    device_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        """All components together."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def fit(self) -> MemoryFit:
        """Return how it compares with the device: tight above 85 % of it."""
        if self.device_bytes is None:
            return MemoryFit.UNKNOWN
        share = self.total_bytes / max(self.device_bytes, 1)
        return MemoryFit.TOO_LARGE if share > 1 else MemoryFit.TIGHT if share > _TIGHT_SHARE else MemoryFit.FITS
