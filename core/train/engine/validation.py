"""One validation over all ranks: every data rank scores its share, the sums are added up, all ranks get the same result."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.distributed.tensor import DTensor

from core.train.data.batches import validation_batches
from core.train.engine.agreement import Agreement
from core.train.engine.contracts import Batch, DataPart, Evaluation, ParallelModel, TrainingTask


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a micro-batch on a device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def is_whole(model: ParallelModel) -> bool:
    """Tell whether a rank holds the whole model, so that the module can be called alone."""
    mesh = model.mesh
    if mesh.tensor_size * mesh.pipeline_size * mesh.context_size > 1:
        return False
    return not any(isinstance(p, DTensor) for part in model.parts for p in part.parameters())


class Validator:
    """Validates the model of a run. Thread: the main one, on every rank.

    Args:
        task: Scores and evaluates.
        model: The model, with the weights to validate in place.
        part: The held-out part.
        micro_batch: Samples per forward pass.
        agreement: Exchanges between the ranks.
    """

    def __init__(
        self, task: TrainingTask, model: ParallelModel, part: DataPart, *, micro_batch: int, agreement: Agreement
    ) -> None:
        self._task = task
        self._model = model
        self._part = part
        self._micro_batch = micro_batch
        self._agreement = agreement

    @torch.no_grad()
    def run(self, step: int, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Return what the validation found; None when a stop was asked for meanwhile."""
        sums: dict[str, float] = {}
        for part in self._model.parts:
            part.eval()
        try:
            for batch, is_scored in validation_batches(self._part, self._model.mesh, self._micro_batch):
                if self._agreement.any(should_stop()):
                    return None
                output = self._model.forward(batch)
                if output is None or not is_scored:
                    continue
                for name, value in self._task.score(output, on_device(batch, output.device)).items():
                    sums[name] = sums.get(name, 0.0) + value
            found = self._task.evaluation(self._agreement.sum_over_data(sums))
            if self._model.mesh.is_main and is_whole(self._model):
                self._task.after_validation(self._model.parts[0], step)
            return found
        finally:
            for part in self._model.parts:
                part.train()
