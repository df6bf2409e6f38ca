"""Batches of augmented images, as a pure function of seed and step.

The order of an epoch comes from (seed, epoch) and the augmentation of an image from (seed, epoch, image), so that a
resumed run sees the same pixels as an uninterrupted one, with any number of loading processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from core.contracts.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from core.train.augmentation import AugmentationSpec
    from core.train.image_data import ImageSet

ImageBatch = tuple[torch.Tensor, torch.Tensor]
Place = tuple[int, int]


def build_augmentation(spec: AugmentationSpec, image_size: int) -> v2.Transform:
    """Return the random transforms of one uint8 image, shape (channels, size, size), to float32 in [0, 1]."""
    steps: list[torch.nn.Module] = [v2.ToDtype(torch.float32, scale=True)]
    if spec.rotation_deg or spec.translate_fraction or spec.scale_fraction or spec.shear_deg:
        steps.append(
            v2.RandomAffine(
                degrees=[-spec.rotation_deg, spec.rotation_deg],
                translate=(spec.translate_fraction, spec.translate_fraction),
                scale=(1.0 - spec.scale_fraction, 1.0 + spec.scale_fraction),
                shear=[-spec.shear_deg, spec.shear_deg, -spec.shear_deg, spec.shear_deg] if spec.shear_deg else None,
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if spec.crop_padding_px:
        steps.append(v2.RandomCrop(image_size, padding=spec.crop_padding_px))
    if spec.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(0.5))
    if spec.erase_probability:
        steps.append(v2.RandomErasing(spec.erase_probability, scale=(0.02, 0.15)))
    return v2.Compose(steps)


class _AugmentedImages(Dataset[tuple[torch.Tensor, int]]):
    """Gives the augmented image at a place ``(epoch, position in the part)``."""

    def __init__(self, images: ImageSet, indices: NDArray[np.int64], augment: v2.Transform, seed: int) -> None:
        self._images = images
        self._indices = indices
        self._augment = augment
        self._seed = seed

    def __getitem__(self, place: Place) -> tuple[torch.Tensor, int]:
        epoch, position = place
        index = int(self._indices[position])
        draw = int(np.random.SeedSequence((self._seed, epoch, index)).generate_state(1, np.uint64)[0])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(draw)
            pixels = self._augment(torch.from_numpy(np.array(self._images.pixels[index])))
        return pixels, int(self._images.labels[index])


class _PlaceSampler(Sampler[list[Place]]):
    """Yields the places of one micro-batch after the other, over all epochs, from a given step on."""

    def __init__(self, batches: ImageBatches, first_step: int) -> None:
        self._batches = batches
        self._first_step = first_step

    def __iter__(self) -> Iterator[list[Place]]:
        step = self._first_step
        while True:
            yield from self._batches.places_of(step)
            step += 1


class ImageBatches:
    """The training part as an endless row of steps, each of ``grad_accum_steps`` micro-batches.

    Raises:
        UserError: The part is smaller than one step.
    """

    def __init__(
        self, images: ImageSet, indices: NDArray[np.int64], spec: BatchSpec, augment: v2.Transform, seed: int
    ) -> None:
        self._count = len(indices)
        self._spec = spec
        self._seed = seed
        self._dataset = _AugmentedImages(images, indices, augment, seed)
        self.batch = spec.micro_batch * spec.grad_accum_steps
        self.steps_per_epoch = self._count // self.batch
        if self.steps_per_epoch == 0:
            raise UserError(
                f"The training part has {self._count} images, fewer than one step of {self.batch}.",
                "Lower the batch or the gradient accumulation.",
            )

    def places_of(self, step: int) -> Iterator[list[Place]]:
        """Yield the places of each micro-batch of a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
        start = within * self.batch
        for first in range(start, start + self.batch, self._spec.micro_batch):
            yield [(epoch, int(position)) for position in order[first : first + self._spec.micro_batch]]

    def from_step(self, step: int) -> Iterator[list[ImageBatch]]:
        """Yield the micro-batches of each step from ``step`` on, without end."""
        loader = DataLoader(
            self._dataset,
            batch_sampler=_PlaceSampler(self, step),
            num_workers=self._spec.loading_processes,
            generator=torch.Generator().manual_seed(self._seed),
        )
        micro_batches = iter(loader)
        while True:
            yield list(islice(micro_batches, self._spec.grad_accum_steps))


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How many images make a step and who loads them."""

    micro_batch: Annotated[int, Meta(ge=1)]
    grad_accum_steps: Annotated[int, Meta(ge=1)] = 1
    loading_processes: Annotated[int, Meta(ge=0)] = 0
