"""What a way to INT8 offers: quantize a model file into a folder, and score samples with either model.

One module in ``core.compress.quantizers`` per way; each exposes ``QUANTIZER``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from core.compress.spec import Int8Spec, Method
from core.runlog.arrays import LabelledArrays

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Log = Callable[[str, str], None]

_MODULES: dict[Method, str] = {
    "openvino": "core.compress.quantizers.openvino_nncf",
    "onnxruntime": "core.compress.quantizers.onnxruntime_qdq",
    "pytorch": "core.compress.quantizers.pytorch_pt2e",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """Files of an INT8 model.

    Attributes:
        model: The file to load.
        kind: Artifact kind of ``model``.
        companions: Further files that belong to it, such as an IR's weights.
        quantized_layers: Convolutions and matrix products whose weights and inputs are INT8 in the file.
    """

    model: Path
    kind: str
    companions: tuple[Path, ...] = ()
    quantized_layers: int

    @property
    def size_bytes(self) -> int:
        """Size of all its files."""
        return sum(path.stat().st_size for path in (self.model, *self.companions))


class Quantizer(Protocol):
    """One way to INT8. Thread: the worker's main thread."""

    title: str
    versions: tuple[str, ...]

    def quantize(self, model: Path, calibration: LabelledArrays, spec: Int8Spec, folder: Path, log: Log) -> Quantized:
        """Write the INT8 model into ``folder``.

        Raises:
            UserError: The model cannot be quantized this way; the hint says which other way to take.
            EnvironmentProblem: This machine lacks what the method needs.
        """
        ...

    def predict(self, model: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Load a model file, original or INT8, and return its scores, shape (n, classes).

        Raises:
            UserError: It cannot be loaded or does not take such samples.
        """
        ...


def quantizer_for(method: Method) -> Quantizer:
    """Import and return the quantizer of a method."""
    return importlib.import_module(_MODULES[method]).QUANTIZER
