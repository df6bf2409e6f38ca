"""ONNX Runtime on the CPU, full graph optimization, idle threads asleep; timed through its input/output binding.

Thread spinning is off: it wins on an idle machine, and loses, and disturbs others, on one that also shows a window.
"""

from __future__ import annotations

import tempfile
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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INT8_LAYERS = ("QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")
_FLOAT_LAYERS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_INSPECTED_BYTES = 512 << 20


def _errors() -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's exceptions; they share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*found, RuntimeError, ValueError)


def _options(threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _create(model: Path, options: Any) -> Any:
    import onnxruntime as ort

    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _execution(model: Path, precision: Precision) -> Execution:
    """Count the layers of the graph that the runtime really executes, by letting it write that graph out."""
    if model.stat().st_size > _INSPECTED_BYTES:
        return Execution(precision=precision, int8_layers=0, layers=0)
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        options = _options(1)
        options.optimized_model_filepath = str(Path(folder) / "executed.onnx")
        _create(model, options)
        operations = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    int8 = sum(operation in _INT8_LAYERS for operation in operations)
    floats = sum(operation in _FLOAT_LAYERS for operation in operations)
    return Execution(precision="int8" if int8 > floats else "fp32", int8_layers=int8, layers=int8 + floats)


class OnnxRuntimeSession:
    """A model in ONNX Runtime; see ``core.infer.backend.Session``."""

    def __init__(self, model: Path, options: LoadOptions) -> None:
        self._model = model
        self._precision: Precision = options.precision
        self._session = _create(model, _options(options.threads))
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise UserError(
                f"The model {model.name} has {len(inputs)} inputs.", "Only models with one input are taken."
            )
        self._input = inputs[0].name
        self._shape: Shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)

    @property
    def input_shape(self) -> Shape:
        """Shape of its input."""
        return self._shape

    @property
    def execution(self) -> Execution:
        """What the optimized graph computes with; dear (the graph is optimized once more), ask once."""
        return _execution(self._model, self._precision)

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of a batch."""
        check_batch(self._shape, batch, self._model.name)
        return self._session.run(None, {self._input: batch})[0]

    def bind(self, batch: NDArray[np.float32]) -> Callable[[], object]:
        """Return a call through input/output binding, which copies nothing."""
        import onnxruntime as ort

        check_batch(self._shape, batch, self._model.name)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, ort.OrtValue.ortvalue_from_numpy(batch))
        binding.bind_output(self._session.get_outputs()[0].name)
        session = self._session

        def call() -> object:
            return session.run_with_iobinding(binding)

        return call

    def close(self) -> None:
        """Drop the session."""
        del self._session


class OnnxRuntimeBackend:
    """ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    library = "onnxruntime"
    suffixes: tuple[str, ...] = (".onnx",)
    precisions: tuple[Precision, ...] = ("fp32", "int8")

    def status(self) -> BackendStatus:
        """Tell whether onnxruntime is installed."""
        return installed_status(self.name, self.library)

    def load(self, model: Path, options: LoadOptions) -> Session:
        """Load an ``.onnx`` file."""
        check_model(self, model, options.precision)
        if not self.status().is_available:
            raise EnvironmentProblem("ONNX Runtime is not installed.", "Run: pip install onnxruntime")
        try:
            return OnnxRuntimeSession(model, options)
        except _errors() as error:
            raise UserError(
                f"ONNX Runtime cannot load {str(model)!r}: {first_line(error)}", "Give a valid .onnx model."
            ) from error


BACKEND = OnnxRuntimeBackend()
