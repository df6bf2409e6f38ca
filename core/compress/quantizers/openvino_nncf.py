"""INT8 by NNCF's post-training quantization on OpenVINO IR; fastest on x86 of the ways here, and it can hold a gate.

Quantizes activations and per-channel weights with bias correction. When the result misses the accuracy gate on the
calibration samples (never on the test samples: that would be choosing by the test), NNCF's accuracy control gives
the costliest layers back to floating point.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.compress.quantizer import Quantized
from core.compress.spec import Int8Spec
from core.contracts.errors import UserError
from core.jobs.signal_stack import own_signal_stack
from core.runlog.arrays import LabelledArrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.compress.quantizer import Log

KIND = "model.openvino.int8"
_BATCH = 64
_LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def _compile(model: Any) -> Any:
    """Compile in true fp32: OpenVINO's silent default on many CPUs is bf16."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    with own_signal_stack():
        return ov.Core().compile_model(model, "CPU", settings)


def _scores(compiled: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    request = compiled.create_infer_request()
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(x), _BATCH):
        request.infer([x[start : start + _BATCH]])
        rows.append(np.array(request.get_output_tensor(0).data, dtype=np.float32))
    return np.concatenate(rows)


def _accuracy(compiled: Any, data: LabelledArrays) -> float:
    return float((_scores(compiled, data.x).argmax(axis=1) == data.y).mean())


def _quantized_layers(compiled: Any) -> int:
    """Count layers that the compiled model really executes on 8-bit integers."""
    executed = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    return sum(
        info["layerType"].astype(str) in _LAYERS and info["runtimePrecision"].astype(str) in ("u8", "i8")
        for info in executed
        if "layerType" in info and "runtimePrecision" in info
    )


class OpenVinoNncf:
    """NNCF on OpenVINO IR."""

    title = "NNCF on OpenVINO IR"
    versions = ("openvino", "nncf")

    @own_signal_stack()
    def quantize(self, model: Path, calibration: LabelledArrays, spec: Int8Spec, folder: Path, log: Log) -> Quantized:
        """Write ``model-int8.xml`` and ``model-int8.bin``; see ``core.compress.quantizer.Quantizer``."""
        os.environ.setdefault("NNCF_CI", "1")  # keeps NNCF from sending usage statistics, which nobody agreed to
        import nncf
        import openvino as ov

        original = _read(model)
        samples = nncf.Dataset([calibration.x[i : i + 1] for i in range(len(calibration))])
        try:
            quantized = nncf.quantize(original, samples, subset_size=len(calibration), fast_bias_correction=False)
            if spec.accuracy_control:
                quantized = self._hold_gate(_read(model), quantized, calibration, spec, log)
        except (RuntimeError, nncf.ValidationError) as error:
            raise UserError(
                f"NNCF {version('nncf')} cannot quantize {model.name}: {_first_line(error)}", "Try another method."
            ) from error
        written = folder / "model-int8.xml"
        ov.save_model(quantized, written, compress_to_fp16=False)
        layers = _quantized_layers(_compile(_read(written)))
        return Quantized(model=written, kind=KIND, companions=(written.with_suffix(".bin"),), quantized_layers=layers)

    def _hold_gate(self, original: Any, quantized: Any, calibration: LabelledArrays, spec: Int8Spec, log: Log) -> Any:
        before, after = _accuracy(_compile(original), calibration), _accuracy(_compile(quantized), calibration)
        allowed = spec.max_accuracy_drop_points / 100
        if before - after <= allowed + 1e-9:
            return quantized
        import nncf

        log(
            f"NNCF's model loses {100 * (before - after):.2f} points on the calibration samples; "
            "accuracy control gives layers back to floating point.",
            "info",
        )
        single = nncf.Dataset([calibration.x[i : i + 1] for i in range(len(calibration))])
        pairs = nncf.Dataset(
            [(calibration.x[i : i + 1], int(calibration.y[i])) for i in range(len(calibration))], lambda pair: pair[0]
        )
        return nncf.quantize_with_accuracy_control(
            original,
            calibration_dataset=single,
            validation_dataset=pairs,
            validation_fn=lambda compiled, _: (_accuracy(compiled, calibration), None),
            max_drop=allowed,
            drop_type=nncf.DropType.ABSOLUTE,
            subset_size=len(calibration),
        )

    def predict(self, model: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of an ONNX or IR model; see ``core.compress.quantizer.Quantizer``."""
        try:
            return _scores(_compile(_read(model)), x)
        except RuntimeError as error:
            raise UserError(
                f"OpenVINO cannot run {model.name} on samples of shape {x.shape[1:]}: {_first_line(error)}",
                "Check that the model takes one float32 input of this shape with a dynamic batch.",
            ) from error


def _read(model: Path) -> Any:
    import openvino as ov

    try:
        return ov.Core().read_model(model)
    except RuntimeError as error:
        raise UserError(
            f"OpenVINO cannot read {str(model)!r}: {_first_line(error)}", "Give an .onnx or .xml model file."
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


QUANTIZER = OpenVinoNncf()
