"""INT8 by ONNX Runtime's static quantization (QDQ, uint8 activations, int8 weights): the most portable way.

Unsigned activations on purpose: with signed ones the runtime rewrites them to unsigned on x86 but not where two layers
share one, and those layers then silently compute in float. The graph is brought to opset 13 or later first (below it
per-channel files are written that the runtime itself refuses). Scales that no real activation has are refused: they
betray a quantized mask.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.compress.quantizer import Quantized
from core.compress.spec import Int8Spec
from core.contracts.errors import UserError
from core.runlog.arrays import LabelledArrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.compress.quantizer import Log

KIND = "model.onnx.int8"
_BATCH = 64
_FIRST_OPSET = 13
_ABSURD_SCALE = 1e3
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _options() -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options


def _session(model: Path) -> Any:
    import onnxruntime as ort

    try:
        session = ort.InferenceSession(str(model), _options(), providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's errors share no base class that it exports.
        if type(error).__module__.startswith("onnxruntime"):
            raise UserError(
                f"ONNX Runtime cannot load {str(model)!r}: {_first_line(error)}", "Give a valid .onnx model."
            ) from error
        raise
    if len(session.get_inputs()) != 1:
        raise UserError(
            f"The model {model.name} has {len(session.get_inputs())} inputs.", "Only models with one input are taken."
        )
    return session


@contextlib.contextmanager
def _as_user_error(model: Path, doing: str) -> Generator[None]:
    try:
        yield
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"ONNX Runtime {version('onnxruntime')} cannot {doing} {model.name}: {_first_line(error)}",
            "Try another method.",
        ) from error


def _prepare(model: Path, scratch: Path) -> Path:
    """Clean the graph for quantization; return the cleaned file."""
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source = model
    loaded = onnx.load(model)
    opset = next((entry.version for entry in loaded.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < _FIRST_OPSET:
        source = scratch / "opset.onnx"
        onnx.save(version_converter.convert_version(loaded, _FIRST_OPSET), source)
    prepared = scratch / "prepared.onnx"
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def _reader(name: str, data: LabelledArrays) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Samples(CalibrationDataReader):
        """Hands the calibrator one sample at a time."""

        def __init__(self) -> None:
            self._next = 0

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            index, self._next = self._next, self._next + 1
            return {name: data.x[index : index + 1]} if index < len(data) else None

    return Samples()


def _quantized_layers(model: Path) -> int:
    """Count layers fed by a DequantizeLinear; refuse absurd activation scales."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    scales = {i.name: numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith("_scale")}
    absurd = [name for name, value in scales.items() if value.size and float(value.max()) > _ABSURD_SCALE]
    if absurd:
        raise UserError(
            f"Calibration gave absurd ranges, such as {absurd[0]!r}: a mask or a constant was quantized as an activation.",
            "Use the method openvino for this model.",
        )
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    return sum(node.op_type in _LAYERS and node.input[0] in dequantized for node in graph.node)


class OnnxRuntimeQdq:
    """Static QDQ quantization by ONNX Runtime."""

    title = "ONNX Runtime static QDQ"
    versions = ("onnxruntime", "onnx")

    def quantize(self, model: Path, calibration: LabelledArrays, spec: Int8Spec, folder: Path, log: Log) -> Quantized:
        """Write ``model-int8.onnx``; see ``core.compress.quantizer.Quantizer``."""
        import tempfile

        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        del log
        reader = _reader(_session(model).get_inputs()[0].name, calibration)
        written = folder / "model-int8.onnx"
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, _as_user_error(model, "quantize"):
            quantize_static(
                _prepare(model, Path(scratch)),
                written,
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=spec.per_channel,
                reduce_range=spec.reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return Quantized(model=written, kind=KIND, quantized_layers=_quantized_layers(written))

    def predict(self, model: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of an ONNX model; see ``core.compress.quantizer.Quantizer``."""
        import numpy as np

        session = _session(model)
        name = session.get_inputs()[0].name
        try:
            rows = [session.run(None, {name: x[i : i + _BATCH]})[0] for i in range(0, len(x), _BATCH)]
        except Exception as error:
            if type(error).__module__.startswith("onnxruntime"):
                raise UserError(
                    f"ONNX Runtime cannot run {model.name} on samples of shape {x.shape[1:]}: {_first_line(error)}",
                    "Check that the model takes one float32 input of this shape with a dynamic batch.",
                ) from error
            raise
        return np.concatenate(rows).astype(np.float32)


def _first_line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]


QUANTIZER = OnnxRuntimeQdq()
