"""What an INT8 compression run is asked: the model, the data to calibrate and judge with, the methods and the gate."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from core.contracts.specs import RunSpec, Seed

Method = Literal["openvino", "onnxruntime", "pytorch"]
METHODS: tuple[Method, ...] = ("openvino", "onnxruntime", "pytorch")


def _file(section: str) -> dict[str, object]:
    return {"path": "file", "section": section}


def _advanced(unit: str = "") -> dict[str, object]:
    return {"advanced": True, "section": "Quantization", "unit": unit}


class Int8Spec(RunSpec, frozen=True, kw_only=True, tag="compress.int8"):
    """Quantize a trained model to INT8 and judge it by its measured accuracy."""

    method: Annotated[
        Literal["all", "openvino", "onnxruntime", "pytorch"],
        Meta(
            title="Method",
            description=(
                "openvino: NNCF on OpenVINO IR. onnxruntime: static QDQ, the most portable. pytorch: PT2E with oneDNN "
                "INT8 kernels. all: one model of each."
            ),
            extra_json_schema={"section": "Quantization"},
        ),
    ] = "all"
    model: Annotated[
        str,
        Meta(
            title="ONNX model",
            description="Model for the methods openvino and onnxruntime. Empty: the one of the run this builds on.",
            extra_json_schema=_file("Model and data"),
        ),
    ] = ""
    torch_model: Annotated[
        str,
        Meta(
            title="PyTorch model",
            description="A .pt2 file of torch.export, for the method pytorch. Empty: the one of the run this builds on.",
            extra_json_schema=_file("Model and data"),
        ),
    ] = ""
    calibration_data: Annotated[
        str,
        Meta(
            title="Calibration data",
            description="An .npz with x and y from the training part. Empty: that of the run this builds on.",
            extra_json_schema=_file("Model and data"),
        ),
    ] = ""
    test_data: Annotated[
        str,
        Meta(
            title="Test data",
            description="An .npz with x and y that the model never saw. Empty: that of the run this builds on.",
            extra_json_schema=_file("Model and data"),
        ),
    ] = ""
    calibration_samples: Annotated[
        int,
        Meta(
            title="Calibration samples",
            ge=1,
            le=100_000,
            description="How many samples set the ranges of the activations; usually 100 to 500.",
            extra_json_schema={"section": "Quantization", "unit": "samples"},
        ),
    ] = 128
    max_accuracy_drop_points: Annotated[
        float,
        Meta(
            title="Accuracy gate",
            ge=0,
            le=100,
            description="Largest drop of test accuracy at which an INT8 model is accepted; 1 point is 1 % of the samples.",
            extra_json_schema={"section": "Quantization", "unit": "points"},
        ),
    ] = 1.0
    accuracy_control: Annotated[
        bool,
        Meta(
            title="Accuracy control",
            description=(
                "When NNCF's model misses the gate on the calibration data, give the layers that cost most back to "
                "floating point until it holds. Method openvino only."
            ),
            extra_json_schema=_advanced(),
        ),
    ] = True
    per_channel: Annotated[
        bool,
        Meta(
            title="Per-channel weights",
            description="One scale per output channel rather than per tensor: more accurate. Method onnxruntime only.",
            extra_json_schema=_advanced(),
        ),
    ] = True
    reduce_range: Annotated[
        bool,
        Meta(
            title="7-bit weights",
            description=(
                "Keeps products from overflowing on x86 CPUs without VNNI, at some accuracy. Method onnxruntime only."
            ),
            extra_json_schema=_advanced(),
        ),
    ] = False
    seed: Annotated[
        Seed,
        Meta(title="Seed", description="Fixes which calibration samples are drawn.", extra_json_schema=_advanced()),
    ] = 0

    def methods(self) -> tuple[Method, ...]:
        """Return the methods asked for, in a fixed order."""
        return METHODS if self.method == "all" else (self.method,)
