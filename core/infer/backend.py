"""What an inference backend offers: say whether it can run here, load a model file, run batches, and say what really ran.

One module in ``core.infer.backends`` per backend; each exposes ``BACKEND``. Importing it is cheap: the library itself is
imported by its methods.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from core.contracts.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["fp32", "bf16", "int8"]
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """Whether a backend can run here, in a sentence; ``version`` is empty when it is not installed."""

    name: str
    is_available: bool
    version: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to load a model.

    Attributes:
        threads: CPU threads for one inference.
        precision: Arithmetic wanted. ``int8`` means that the file itself is quantized.
    """

    threads: int = 1
    precision: Precision = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What a loaded model really computes with, read back from the backend after its own optimization.

    Attributes:
        precision: Arithmetic of most layers: ``fp32``, ``bf16`` or ``int8``.
        int8_layers: Convolutions and matrix products computed in INT8, of ``layers`` in all.
    """

    precision: Precision
    int8_layers: int
    layers: int


class Session(Protocol):
    """One loaded model. Thread: the one that loaded it."""

    @property
    def input_shape(self) -> Shape:
        """Shape of its input; None where any size goes."""
        ...

    @property
    def execution(self) -> Execution:
        """What it computes with."""
        ...

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of a batch, shape (n, classes).

        Raises:
            UserError: The batch does not have the input's shape.
        """
        ...

    def bind(self, batch: NDArray[np.float32]) -> Callable[[], object]:
        """Return the backend's cheapest call on this batch: input in place, output not copied. For timing.

        Raises:
            UserError: The batch does not have the input's shape.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class Backend(Protocol):
    """One library that runs models; ``library`` is the name it is installed and imported under."""

    name: str
    title: str
    library: str
    suffixes: tuple[str, ...]
    precisions: tuple[Precision, ...]

    def status(self) -> BackendStatus:
        """Tell whether it can run here; never raises."""
        ...

    def load(self, model: Path, options: LoadOptions) -> Session:
        """Load a model file.

        Raises:
            UserError: The file is missing, damaged or of another format, or the precision is not offered.
            EnvironmentProblem: The library is not installed.
        """
        ...


@cache
def backends() -> dict[str, Backend]:
    """Return every backend by name, available or not."""
    package = importlib.import_module("core.infer.backends")
    modules = (
        importlib.import_module(f"core.infer.backends.{info.name}") for info in pkgutil.iter_modules(package.__path__)
    )
    return {module.BACKEND.name: module.BACKEND for module in modules}


def backend_named(name: str) -> Backend:
    """Return a backend; UserError naming those there are."""
    if name not in backends():
        raise UserError(f"There is no backend {name!r}.", f"Use one of: {', '.join(sorted(backends()))}.")
    return backends()[name]


def installed_status(name: str, package: str) -> BackendStatus:
    """Return the status of a backend that is available whenever its package is installed."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return BackendStatus(
            name=name,
            is_available=False,
            version="",
            sentence=f"{package} is not installed; run: pip install {package}",
        )
    return BackendStatus(name=name, is_available=True, version=found, sentence=f"{package} {found}")


def check_model(backend: Backend, model: Path, precision: Precision) -> None:
    """Refuse what a backend cannot load, before its library is asked.

    Raises:
        UserError: No such file, another format, or a precision that the backend does not offer.
    """
    if not model.is_file():
        raise UserError(f"There is no model file {str(model)!r}.", "Check the path.")
    if model.suffix not in backend.suffixes:
        raise UserError(
            f"{backend.title} does not read {model.name!r}.", f"Give a file of type {' or '.join(backend.suffixes)}."
        )
    if precision not in backend.precisions:
        raise UserError(
            f"{backend.title} does not offer {precision} here.", f"Use one of: {', '.join(backend.precisions)}."
        )


def check_batch(shape: Shape, batch: NDArray[np.float32], title: str) -> None:
    """Refuse a batch that does not fit the input; UserError names both shapes."""
    fits = batch.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, batch.shape, strict=False)
    )
    if not fits or batch.dtype.name != "float32":
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise UserError(
            f"The model takes float32 batches of shape ({wanted}), not {batch.dtype.name} of shape {batch.shape}.",
            f"Prepare the samples as {title} was trained to see them.",
        )


def first_line(error: BaseException) -> str:
    """Return the first telling line of a library's error, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
