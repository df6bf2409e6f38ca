"""What a finished ``train.image`` run leaves behind: the model in three forms, and the data to measure it with.

``model.safetensors`` + ``model.json`` (our classes), ``model.pt2`` (torch.export, needs no class of ours) and
``model.onnx``; each exported form is run on real images and compared with the trained network before it is listed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from torch import nn

from core.contracts.events import Cell
from core.contracts.worker import RunContext
from core.train.data.image_set import ImageSet, Split, as_input
from core.train.image_network import ImageNetworkConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION_IMAGES = 256
_PROBE_IMAGES = 64
_TOLERANCE = 1e-3


def write_data(context: RunContext, images: ImageSet, split: Split, seed: int) -> None:
    """Write ``test.npz`` (the held-out part) and ``calibration.npz`` (drawn from the training part, not augmented)."""
    drawn = np.random.default_rng(seed).permutation(split.train)[:CALIBRATION_IMAGES]
    for name, kind, indices in (("test", "data.test", split.test), ("calibration", "data.calibration", drawn)):
        path = context.artifacts_dir / f"{name}.npz"
        pixels = as_input(images.pixels[indices])
        np.savez_compressed(path, x=pixels, y=images.labels[indices], classes=np.array(images.classes))
        context.artifact(path, kind=kind, meta={"images": len(indices), "input_shape": _shape_text(pixels.shape)})


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(["N", *(str(size) for size in shape[1:])])


def _write_weights(model: nn.Module, config: ImageNetworkConfig, folder: Path) -> Path:
    from safetensors.torch import save_model

    weights = folder / "model.safetensors"
    save_model(model, str(weights), metadata={"format": config.format})
    (folder / "model.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
    return weights


def _write_export(model: nn.Module, example: torch.Tensor, path: Path) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return program


def write_onnx(program: torch.export.ExportedProgram, path: Path, inputs: Sequence[str]) -> None:
    """Export to ONNX without the exporter's chatter; its errors still raise."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        exported = torch.onnx.export(program, dynamo=True, input_names=list(inputs), output_names=["logits"])
        assert exported is not None
        exported.save(path, external_data=False)


def largest_difference(expected: NDArray[np.float32], found: NDArray[np.float32], what: str) -> float:
    """Return the largest absolute difference of two outputs.

    Raises:
        RuntimeError: It is more than rounding explains.
    """
    difference = float(np.abs(expected - found).max())
    if difference > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise RuntimeError(f"the exported {what} differs from the trained network by {difference:.3g}")
    return difference


def _check_export(path: Path, probe: torch.Tensor, expected: NDArray[np.float32]) -> float:
    loaded = torch.export.load(path).module()
    found = np.concatenate([loaded(part).numpy() for part in (probe[:1], probe[1:])])
    return largest_difference(expected, found, path.name)


def _check_onnx(path: Path, probe: torch.Tensor, expected: NDArray[np.float32]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = np.concatenate([np.asarray(session.run(None, {name: part.numpy()})[0]) for part in (probe[:1], probe[1:])])
    return largest_difference(expected, found, path.name)


def write_model(
    context: RunContext, model: nn.Module, config: ImageNetworkConfig, test: ImageSet, accuracy: float
) -> None:
    """Write, check and list the model's three forms.

    Args:
        context: The run.
        model: Trained network; moved to the CPU.
        config: Its architecture.
        test: Held-out images to check the exports with; the first ones are used.
        accuracy: On the whole held-out part, 0 to 1, for the artifacts' description.

    Raises:
        RuntimeError: An exported form computes something else than the network.
    """
    model = model.cpu().eval()
    probe = torch.from_numpy(as_input(test.pixels[:_PROBE_IMAGES]))
    with torch.no_grad():
        expected = model(probe).numpy()
        meta: dict[str, Cell] = {
            "input_shape": _shape_text(tuple(probe.shape)),
            "num_classes": len(config.classes),
            "classes": ", ".join(config.classes[:50]),
            "accuracy": accuracy,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        context.artifact(
            _write_weights(model, config, context.artifacts_dir),
            kind="model.torch",
            meta={**meta, "config": "model.json"},
        )
        context.artifact(context.artifacts_dir / "model.json", kind="model.config")
        context.progress(0.2, "Exporting the model (torch.export)")
        exported = context.artifacts_dir / "model.pt2"
        program = _write_export(model, probe[:2], exported)
        difference = _check_export(exported, probe, expected)
        context.artifact(exported, kind="model.torch_export", meta={**meta, "max_abs_difference": difference})
        context.progress(0.5, "Exporting the model (ONNX)")
        onnx = context.artifacts_dir / "model.onnx"
        write_onnx(program, onnx, ("input",))
        difference = _check_onnx(onnx, probe, expected)
        context.artifact(onnx, kind="model.onnx", meta={**meta, "max_abs_difference": difference})
