"""INT8 inside PyTorch: PT2E calibration (torchao), then oneDNN's INT8 kernels in place of the float ones.

The written ``.pt2`` needs PyTorch alone to load and run, no torchao and no C++ compiler, and computes convolutions and
linear layers in INT8 (x86). Everything between them (additions, pooling) stays in float: in eager mode, small models at
batch 1 gain little; larger batches do.
"""

from __future__ import annotations

import logging
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.compress.quantizer import Quantized
from core.compress.spec import Int8Spec
from core.contracts.errors import EnvironmentProblem, UserError
from core.runlog.arrays import LabelledArrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.compress.quantizer import Log

KIND = "model.torch_export.int8"
_BATCH = 64
_EPS = 2.0**-12


def _load(model: Path) -> Any:
    if not zipfile.is_zipfile(model):
        raise UserError(
            f"PyTorch cannot load {str(model)!r}: it is missing, no .pt2 archive, or cut short.",
            "Give a .pt2 file of torch.export.save.",
        )
    import torch

    try:
        return torch.export.load(model).module(check_guards=False)
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        raise UserError(
            f"PyTorch cannot load {str(model)!r}: {_first_line(error)}", "Give a .pt2 file of torch.export.save."
        ) from error


def _annotator() -> Any:
    """Return a quantizer that marks inputs and weights of convolutions and linear layers, and nothing else."""
    import torch
    from torchao.quantization.pt2e.observer import HistogramObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    activation = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=HistogramObserver.with_args(eps=_EPS),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=_EPS),
    )
    layers = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)

    class LayersOnly(Quantizer):
        """Annotates the two operations that oneDNN has INT8 kernels for."""

        def annotate(self, model: Any) -> Any:
            for node in model.graph.nodes:
                if node.target in layers:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: activation, node.args[1]: weight}, _annotated=True
                    )
            return model

        def validate(self, model: Any) -> None:
            """Accept everything: ``annotate`` marks only what it knows."""

    return LayersOnly()


def _calibrate(model: Any, calibration: LabelledArrays) -> Any:
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    observed = prepare_pt2e(model, _annotator())
    with torch.inference_mode():
        for start in range(0, len(calibration), _BATCH):
            observed(torch.from_numpy(calibration.x[start : start + _BATCH]))
    return convert_pt2e(observed)


def _drop_unused(model: Any) -> None:
    """Remove the float weights that no node reads any more; they would be saved with the file."""
    used = {node.target for node in model.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*model.named_parameters(), *model.named_buffers()) if name not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(model.get_submodule(owner), leaf)


@cache
def _tell_shape_of_packed_weights() -> None:
    """Register what ``torch.export`` must know of oneDNN's repacking and PyTorch does not say; once per process."""
    import torch

    def packed_like(weight: Any, *_: Any) -> Any:
        return torch.empty_like(weight)

    torch.library.register_fake("onednn::qconv_prepack", packed_like)


def _export(model: Any, sample: Any, written: Path) -> None:
    import torch

    _tell_shape_of_packed_weights()
    program = torch.export.export(model, (sample,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, written)


class PyTorchPt2e:
    """PT2E quantization with oneDNN INT8 kernels."""

    title = "PyTorch PT2E with oneDNN INT8 kernels"
    versions = ("torch", "torchao")

    def quantize(self, model: Path, calibration: LabelledArrays, spec: Int8Spec, folder: Path, log: Log) -> Quantized:
        """Write ``model-int8.pt2``; see ``core.compress.quantizer.Quantizer``."""
        import torch

        del spec, log
        if "onednn" not in torch.backends.quantized.supported_engines:
            raise EnvironmentProblem(
                "This build of PyTorch has no oneDNN INT8 kernels.", "Use the method onnxruntime on this machine."
            )
        _quiet()
        original = _load(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchao and torch.export announce their own deprecations
            from core.compress.quantizers.onednn_lowering import lower_to_onednn

            try:
                converted = _calibrate(original, calibration)
                sample = torch.from_numpy(calibration.x[:2].copy())
                with torch.inference_mode():
                    layers = lower_to_onednn(converted, sample)
                if layers == 0:
                    raise UserError(
                        f"The model {model.name} has no two-dimensional convolution or linear layer to quantize.",
                        "Use the method openvino for this model.",
                    )
                _drop_unused(converted)
                written = folder / "model-int8.pt2"
                with torch.no_grad():
                    _export(converted, sample, written)
            except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
                raise UserError(
                    f"PyTorch {torch.__version__} cannot quantize {model.name}: {_first_line(error)}",
                    "Try another method.",
                ) from error
        return Quantized(model=written, kind=KIND, quantized_layers=layers)

    def predict(self, model: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of a ``.pt2`` model; see ``core.compress.quantizer.Quantizer``."""
        import numpy as np
        import torch

        module = _load(model)
        try:
            with torch.inference_mode():
                rows = [module(torch.from_numpy(x[i : i + _BATCH])).float().numpy() for i in range(0, len(x), _BATCH)]
        except RuntimeError as error:
            raise UserError(
                f"PyTorch cannot run {model.name} on samples of shape {x.shape[1:]}: {_first_line(error)}",
                "Check that the model takes one float32 input of this shape with a dynamic batch.",
            ) from error
        return np.concatenate(rows)


def _quiet() -> None:
    """Keep torchao's notes on its optional C++ extensions, which are not used here, out of the run's log."""
    logging.getLogger("torchao").setLevel(logging.ERROR)
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def _first_line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]


QUANTIZER = PyTorchPt2e()
