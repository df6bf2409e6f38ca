"""Image classification as a task of the training engine: loss with label smoothing, validation, the final measurement.

The best epoch is chosen on the validation part; the test part is looked at once, at the end. Reading images is
``core.train.data.images``; networks are built by ``core.train.models.vision``. Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.data.image_set import ImageSet, Split, as_input, channel_statistics
from core.train.data.images import ImageParts, WantedImages, image_parts
from core.train.engine.contracts import Batch, DataPart, Evaluation, Mesh, Outcome
from core.train.engine.train import train
from core.train.image_export import write_data, write_model
from core.train.image_network import SMALL, ImageNetworkConfig, read_config
from core.train.models.flops import forward_flops
from core.train.models.vision import build_network, load_torch_model, load_weights, normalization
from core.train.results import publish_confusion
from core.train.teachers import IMAGE_CONFIG, IMAGE_WEIGHTS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from core.train.tasks.image import ImageTrainingSpec

_EVALUATION_BATCH = 256
_PROBE_IMAGES = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Results on one part.

    Attributes:
        loss: Mean cross entropy in nats.
        accuracy: Share of right answers, 0 to 1.
        predicted: Class of each image, int64, in the order of the part.
    """

    loss: float
    accuracy: float
    predicted: NDArray[np.int64]


def score(model: nn.Module, images: ImageSet, indices: NDArray[np.int64], context: RunContext) -> Scores | None:
    """Classify the given images with a model in evaluation mode; None when a stop was asked for meanwhile."""
    total = 0.0
    predicted = np.empty(len(indices), dtype=np.int64)
    device = next(model.parameters()).device
    with torch.inference_mode():
        for start in range(0, len(indices), _EVALUATION_BATCH):
            if context.should_stop():
                return None
            chosen = indices[start : start + _EVALUATION_BATCH]
            logits = model(torch.from_numpy(as_input(images.pixels[chosen])).to(device)).float()
            labels = torch.from_numpy(images.labels[chosen]).to(device)
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            predicted[start : start + len(chosen)] = logits.argmax(1).cpu().numpy()
    accuracy = float((predicted == images.labels[indices]).mean())
    return Scores(loss=total / len(indices), accuracy=accuracy, predicted=predicted)


def as_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels as the network's input: bytes become float32 in [0, 1]."""
    return pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels


def _shown(value: object) -> str:
    return ", ".join(map(str, value[:10])) if isinstance(value, tuple) else str(value)


class ImageTask:
    """The task of ``train.image``; see ``core.train.engine.contracts.TrainingTask``."""

    unit = "samples"

    def __init__(
        self,
        spec: ImageTrainingSpec,
        context: RunContext,
        config: ImageNetworkConfig,
        parts: ImageParts,
        device: torch.device,
    ) -> None:
        self._spec = spec
        self._device = device
        self._context = context
        self.config = config
        self._parts = parts
        self._sample_flops = 0.0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs."""
        return self.config.classes

    def build_model(self) -> nn.Module:
        """Return the network with weights drawn from the seed, or read from where the spec says."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._spec.seed)
            network = build_network(self.config)
        if self._spec.weights:
            load_weights(network, self.config, self._spec.weights)
        side = self.config.image_size
        self._sample_flops = forward_flops(network, torch.zeros(1, self.config.channels, side, side))
        return network

    def training(self) -> DataPart:
        """Return the augmented training part."""
        return self._parts.training

    def validation(self) -> DataPart:
        """Return the validation part as it is."""
        return self._parts.validation

    def count(self, batch: Batch) -> int:
        """Return the number of images."""
        return len(batch["labels"])

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return logits, shape (batch, classes)."""
        return model(as_pixels(batch["pixels"]))

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the summed smoothed cross entropy in nats (Szegedy et al., 2016, for the smoothing)."""
        smoothing = self._spec.label_smoothing
        return functional.cross_entropy(output.float(), batch["labels"], reduction="sum", label_smoothing=smoothing)

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        """Return the sums behind accuracy, loss and smoothed loss."""
        plain = functional.cross_entropy(output.float(), batch["labels"], reduction="sum")
        right = (output.argmax(1) == batch["labels"]).sum()
        return {
            "images": float(len(batch["labels"])),
            "loss": float(plain),
            "smoothed_loss": float(self.loss(output, batch)),
            "right": float(right),
        }

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        """Return loss and accuracy; the best is the most accurate, then the one with the lowest smoothed loss."""
        images = sums["images"]
        accuracy = sums["right"] / images
        values = {"val/loss": sums["loss"] / images, "val/accuracy": accuracy}
        return Evaluation(values=values, score=(accuracy, -sums["smoothed_loss"] / images))

    def training_flops(self, units: int) -> float:
        """Return forward FLOPs times three: the backward pass costs about twice the forward one."""
        return 3.0 * self._sample_flops * units

    def after_validation(self, model: nn.Module, step: int) -> None:
        """Show nothing: a classifier has its curves."""
        del model, step

    def load_teacher(self, folder: Path) -> nn.Module:
        """Return an image classifier of ours to learn from; see ``core.train.teachers``.

        Raises:
            UserError: The folder holds none, or it was trained on other images or classes.
        """
        if not (folder / IMAGE_CONFIG).is_file():
            raise UserError(
                f"The teacher {folder} is no image classifier: it has no {IMAGE_CONFIG}.",
                "Name a run of train.image, or the folder with its model.",
            )
        teacher = read_config(folder / IMAGE_CONFIG)
        own = self.config
        for what, theirs, ours in (
            ("classes", teacher.classes, own.classes),
            ("images (their size in pixels)", teacher.image_size, own.image_size),
            ("channels", teacher.channels, own.channels),
        ):
            if theirs != ours:
                raise UserError(
                    f"The teacher was trained with other {what}: {_shown(theirs)}, not {_shown(ours)}.",
                    "Choose a teacher that was trained on the same images, or set the same image size and colour.",
                )
        return load_torch_model(folder / IMAGE_CONFIG, folder / IMAGE_WEIGHTS)

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        """Measure the best weights on the test part, once, and write everything the run leaves behind."""
        context, images, split = self._context, self._parts.images, self._parts.split
        network = build_network(self.config)
        network.load_state_dict(dict(weights))
        network.to(self._device).eval()
        context.progress(0.0, "Measuring the test part")
        found = score(network, images, split.test, context)
        if found is None:
            return
        seconds = outcome.train_seconds
        context.result({"test/accuracy": found.accuracy, "test/loss": found.loss, "train_seconds": seconds})
        publish_confusion(context, images.classes, images.labels[split.test], found.predicted)
        write_data(context, images, split, self._spec.split_seed)
        chosen = split.test[:_PROBE_IMAGES]
        probe = ImageSet(pixels=images.pixels[chosen], labels=images.labels[chosen], classes=images.classes)
        write_model(context, network, self.config, probe, found.accuracy)
        context.progress(1.0, "Done")
        context.log(
            f"Test accuracy {found.accuracy:.2%} on {len(split.test)} images with the weights of step "
            f"{outcome.best_step}; trained for {seconds:.1f} s."
        )


def _wanted(spec: ImageTrainingSpec) -> WantedImages:
    return WantedImages(
        data=spec.data,
        image_size=spec.image_size,
        channels=3 if spec.color else 1,
        test_fraction=spec.test_fraction,
        validation_fraction=spec.validation_fraction,
        split_seed=spec.split_seed,
        seed=spec.seed,
        augmentation=spec.augmentation,
        damaged=spec.damaged,
    )


def _configure(spec: ImageTrainingSpec, images: ImageSet, split: Split) -> ImageNetworkConfig:
    from core.train.tasks.image import widths_of

    measured = channel_statistics(images, split.train)
    mean, std = normalization(spec.model, images.pixels.shape[1]) if spec.weights and spec.model != SMALL else measured
    return ImageNetworkConfig(
        architecture=spec.model,
        channels=images.pixels.shape[1],
        image_size=spec.image_size,
        widths=widths_of(spec),
        classes=images.classes,
        mean=mean,
        std=std,
        dropout=spec.dropout,
    )


def train_images(spec: ImageTrainingSpec, context: RunContext) -> None:
    """Train as one rank; see ``core.train.engine.train``."""

    def make_task(mesh: Mesh, own: RunContext) -> ImageTask:
        parts = image_parts(_wanted(spec), mesh=mesh, context=own)
        return ImageTask(spec, own, _configure(spec, parts.images, parts.split), parts, mesh.device)

    train(spec, context, make_task)
