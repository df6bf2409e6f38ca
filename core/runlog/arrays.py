"""Labelled arrays in one ``.npz`` file: how a training run hands its calibration and test data to later runs.

``x`` is float32, shape (n, ...); ``y`` is int64, shape (n,). Read without pickle.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.contracts.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HINT = "Give an .npz file with x (float32, one row per sample) and y (int64 labels)."


@dataclass(frozen=True, slots=True, eq=False)
class LabelledArrays:
    """Samples ``x``, float32, shape (n, ...), and their labels ``y``, int64, shape (n,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, count: int, seed: int) -> LabelledArrays:
        """Return ``count`` samples drawn without replacement; all of them when there are no more."""
        import numpy as np

        if count >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), size=count, replace=False))
        return LabelledArrays(self.x[chosen], self.y[chosen])


def read_arrays(path: Path) -> LabelledArrays:
    """Read labelled samples.

    Raises:
        UserError: Missing, unreadable, damaged, or not of this form.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            x, y = np.asarray(archive["x"]), np.asarray(archive["y"])
    except FileNotFoundError as error:
        raise UserError(f"The data file {str(path)!r} does not exist.", "Check the path.") from error
    except KeyError as error:
        raise UserError(f"The data file {str(path)!r} has no array {error}.", _HINT) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UserError(f"The data file {str(path)!r} cannot be read: {error}.", _HINT) from error
    if x.ndim < 2 or y.shape != (len(x),) or len(x) == 0 or x.dtype.kind != "f" or y.dtype.kind not in "iu":
        raise UserError(f"The data file {str(path)!r} holds x {x.dtype} {x.shape} and y {y.dtype} {y.shape}.", _HINT)
    return LabelledArrays(np.ascontiguousarray(x, dtype=np.float32), y.astype(np.int64))
