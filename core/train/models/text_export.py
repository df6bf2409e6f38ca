"""Writes a text classifier: a folder in Hugging Face layout, and ONNX that was run and compared before it is listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from core.contracts.errors import UserError
from core.contracts.events import Cell
from core.contracts.worker import RunContext
from core.train.image_export import largest_difference, write_onnx
from core.train.models.huggingface import MODEL_KIND
from core.train.models.text_classifier import TextLogits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from core.train.engine.contracts import Batch

_FOLDER = "model"
_NAMES = ("input_ids", "attention_mask")


def write_text_model(
    context: RunContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probe: Batch,
    meta: dict[str, Cell],
) -> None:
    """Write, check and list the model's two forms.

    An architecture that cannot be exported to ONNX is told in the log; the folder is there all the same.

    Args:
        context: The run.
        model: Trained, on the CPU, in evaluation mode.
        tokenizer: Saved with it.
        probe: A real batch of at least two texts, to check the exported form with.
        meta: Description of the artifacts.

    Raises:
        RuntimeError: The exported form computes something else than the model.
    """
    folder = context.artifacts_dir / _FOLDER
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    context.artifact(folder, kind=MODEL_KIND, meta=meta)
    context.progress(0.5, "Exporting the model (ONNX)")
    path = context.artifacts_dir / "model.onnx"
    inputs = (probe["input_ids"], probe["attention_mask"])
    try:
        _write(TextLogits(model).eval(), inputs, path)
    except UserError as error:
        context.log(f"{error.message} {error.hint}", "warning")
        return
    with torch.no_grad():
        expected = TextLogits(model)(*inputs).numpy()
    difference = _check(path, inputs, expected)
    context.artifact(path, kind="model.onnx", meta={**meta, "max_abs_difference": difference})


def _write(network: TextLogits, inputs: tuple[torch.Tensor, torch.Tensor], path: Path) -> None:
    # The exporter finds the longest text that the positions allow by itself.
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad():
            program = torch.export.export(network, inputs, dynamic_shapes=(sizes, sizes), strict=False)
            write_onnx(program, path, _NAMES)
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError, NotImplementedError) as error:
        name = type(network.model).__name__
        first = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{name} cannot be exported to ONNX: {first}", "Use the folder in Hugging Face layout."
        ) from error


def _check(path: Path, inputs: tuple[torch.Tensor, torch.Tensor], expected: np.ndarray) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pieces = [slice(0, 1), slice(1, None)]
    found = [
        session.run(None, {name: part[piece].numpy() for name, part in zip(_NAMES, inputs, strict=True)})[0]
        for piece in pieces
    ]
    return largest_difference(expected, np.concatenate([np.asarray(part) for part in found]), path.name)
