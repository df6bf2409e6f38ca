"""The last readings of a host in arrays, for charts: one ring of times and one of values per key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySample:
    """One reading of the host at ``ts`` (Unix seconds)."""

    ts: float
    values: dict[str, float | None]

    def get(self, key: str) -> float | None:
        """Return one value, None where the host does not tell."""
        return self.values.get(key)


class ReadingHistory:
    """Keeps the last ``capacity`` samples. UI thread."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._samples: list[TelemetrySample] = []

    def append(self, sample: TelemetrySample) -> None:
        """Add one sample, forgetting the oldest beyond the capacity."""
        self._samples.append(sample)
        if len(self._samples) > self.capacity:
            del self._samples[: len(self._samples) - self.capacity]

    @property
    def last(self) -> TelemetrySample | None:
        """The newest sample."""
        return self._samples[-1] if self._samples else None

    def __len__(self) -> int:
        return len(self._samples)

    def keys(self) -> tuple[str, ...]:
        """Return the keys of the newest sample, sorted."""
        return tuple(sorted(self._samples[-1].values)) if self._samples else ()

    def recent(self, key: str, count: int) -> list[float | None]:
        """Return the last ``count`` values of a key, oldest first."""
        return [sample.values.get(key) for sample in self._samples[-count:]]

    def ages_s(self) -> NDArray[np.float64]:
        """Return the age of each sample relative to the newest in seconds (zero and below), shape (n,)."""
        import numpy as np

        times = np.fromiter((sample.ts for sample in self._samples), dtype=np.float64, count=len(self._samples))
        return times - times[-1] if len(times) else times

    def series(self, key: str) -> NDArray[np.float64]:
        """Return the values of a key, NaN where unknown, shape (n,)."""
        import numpy as np

        nan = float("nan")
        found = ((nan if (value := sample.values.get(key)) is None else value) for sample in self._samples)
        return np.fromiter(found, dtype=np.float64, count=len(self._samples))
