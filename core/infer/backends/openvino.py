"""OpenVINO on the CPU, for one stream at lowest latency; timed by re-running one request whose input stays in place.

fp32 is asked for by name: OpenVINO's silent default on many CPUs is bf16, which would flatter an "fp32" row. What ran
is read back from the compiled model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.contracts.errors import EnvironmentProblem, UserError
from core.infer.backend import (
    BackendStatus,
    Execution,
    LoadOptions,
    Precision,
    Session,
    Shape,
    check_batch,
    check_model,
    first_line,
    installed_status,
)
from core.jobs.signal_stack import own_signal_stack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_FP32: Precision = "fp32"
_NAMES: dict[str, Precision] = {"u8": "int8", "i8": "int8", "bf16": "bf16"}


def _execution(compiled: Any) -> Execution:
    executed = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    precisions: Counter[Precision] = Counter(
        _NAMES.get(info["runtimePrecision"].astype(str), _FP32)
        for info in executed
        if "layerType" in info and "runtimePrecision" in info and info["layerType"].astype(str) in _LAYERS
    )
    most = max(precisions, key=precisions.__getitem__) if precisions else _FP32
    return Execution(precision=most, int8_layers=precisions["int8"], layers=precisions.total())


class OpenVinoSession:
    """A compiled model; see ``core.infer.backend.Session``."""

    def __init__(self, compiled: Any, name: str) -> None:
        if len(compiled.inputs) != 1:
            raise UserError(
                f"The model {name} has {len(compiled.inputs)} inputs.", "Only models with one input are taken."
            )
        self._compiled = compiled
        self._name = name
        self._request = compiled.create_infer_request()
        shape = compiled.input(0).get_partial_shape()
        self._shape: Shape = tuple(None if size.is_dynamic else size.get_length() for size in shape)

    @property
    def input_shape(self) -> Shape:
        """Shape of its input."""
        return self._shape

    @property
    def execution(self) -> Execution:
        """What the compiled layers compute with."""
        return _execution(self._compiled)

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of a batch."""
        import numpy as np

        self.bind(batch)()
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)

    def bind(self, batch: NDArray[np.float32]) -> Callable[[], object]:
        """Return a call that re-runs one request on memory shared with the batch."""
        import numpy as np
        import openvino as ov

        check_batch(self._shape, batch, self._name)
        request = self._request
        request.set_input_tensor(ov.Tensor(np.ascontiguousarray(batch), shared_memory=True))

        def call() -> object:
            return request.infer()

        return call

    def close(self) -> None:
        """Free the request and the compiled model."""
        del self._request
        del self._compiled


class OpenVinoBackend:
    """OpenVINO's CPU plug-in."""

    name = "openvino"
    title = "OpenVINO"
    library = "openvino"
    suffixes: tuple[str, ...] = (".onnx", ".xml")
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")

    def status(self) -> BackendStatus:
        """Tell whether openvino is installed."""
        return installed_status(self.name, self.library)

    def load(self, model: Path, options: LoadOptions) -> Session:
        """Load an ``.onnx`` or ``.xml`` file."""
        check_model(self, model, options.precision)
        if not self.status().is_available:
            raise EnvironmentProblem("OpenVINO is not installed.", "Run: pip install openvino")
        import openvino as ov

        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if options.precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            with own_signal_stack():
                return OpenVinoSession(ov.Core().compile_model(model, "CPU", settings), model.name)
        except RuntimeError as error:
            raise UserError(
                f"OpenVINO cannot load {str(model)!r}: {_reason(error)}", "Give a valid .onnx or .xml model."
            ) from error


def _reason(error: RuntimeError) -> str:
    """Return the last line, where OpenVINO puts the cause under lines of its own source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else first_line(error)


BACKEND = OpenVinoBackend()
