"""Image classification as a learning task: loss with label smoothing, validation, and scores on a held-out part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from core.contracts.worker import RunContext
from core.train.image_batches import ImageBatch, ImageBatches
from core.train.image_data import ImageSet, as_input
from core.train.loop import Evaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

_EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Results on one part.

    Attributes:
        loss: Mean cross entropy in nats.
        smoothed_loss: Likewise with the label smoothing of the training; what was really minimized.
        accuracy: Share of right answers, 0 to 1.
        predicted: Class of each image, int64, in the order of the part.
    """

    loss: float
    smoothed_loss: float
    accuracy: float
    predicted: NDArray[np.int64]


def score(
    model: nn.Module,
    images: ImageSet,
    indices: NDArray[np.int64],
    context: RunContext,
    *,
    label_smoothing: float = 0.0,
) -> Scores | None:
    """Classify the given images with a model in evaluation mode; None when a stop was asked for meanwhile."""
    device = next(model.parameters()).device
    total_loss = total_smoothed = 0.0
    predicted = np.empty(len(indices), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(indices), _EVALUATION_BATCH):
            if context.should_stop():
                return None
            chosen = indices[start : start + _EVALUATION_BATCH]
            logits = model(torch.from_numpy(as_input(images.pixels[chosen])).to(device)).float()
            target = torch.from_numpy(images.labels[chosen]).to(device)
            total_loss += float(functional.cross_entropy(logits, target, reduction="sum"))
            smoothed = functional.cross_entropy(logits, target, reduction="sum", label_smoothing=label_smoothing)
            total_smoothed += float(smoothed)
            predicted[start : start + len(chosen)] = logits.argmax(1).cpu().numpy()
    accuracy = float((predicted == images.labels[indices]).mean())
    return Scores(
        loss=total_loss / len(indices),
        smoothed_loss=total_smoothed / len(indices),
        accuracy=accuracy,
        predicted=predicted,
    )


class ImageLearning:
    """The learning task of ``train.image``; see ``core.train.loop.LearningTask``."""

    unit = "samples"

    def __init__(
        self,
        context: RunContext,
        images: ImageSet,
        validation: NDArray[np.int64],
        batches: ImageBatches,
        label_smoothing: float,
    ) -> None:
        self._context = context
        self._images = images
        self._validation = validation
        self._batches = batches
        self._label_smoothing = label_smoothing

    def from_step(self, step: int) -> Iterator[list[ImageBatch]]:
        """Yield the micro-batches of each step."""
        return self._batches.from_step(step)

    def loss(self, model: nn.Module, batch: ImageBatch) -> torch.Tensor:
        """Return the smoothed cross entropy of a micro-batch, in nats."""
        device = next(model.parameters()).device
        pixels, labels = (part.to(device, non_blocking=True) for part in batch)
        return functional.cross_entropy(model(pixels), labels, label_smoothing=self._label_smoothing)

    def amount(self, batch: ImageBatch) -> int:
        """Return the number of images."""
        return len(batch[1])

    def evaluate(self, model: nn.Module) -> Evaluation | None:
        """Score the validation part; the best is the most accurate, then the one with the lowest smoothed loss."""
        smoothing = self._label_smoothing
        found = score(model, self._images, self._validation, self._context, label_smoothing=smoothing)
        if found is None:
            return None
        values = {"val/loss": found.loss, "val/accuracy": found.accuracy}
        return Evaluation(values=values, score=(found.accuracy, -found.smoothed_loss))
