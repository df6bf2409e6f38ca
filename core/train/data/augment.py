"""Random changes of an image while training, drawn from (seed, epoch, number) alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torchvision.transforms import v2

if TYPE_CHECKING:
    from core.train.augmentation import AugmentationSpec


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


def augmented(augment: v2.Transform, pixels: torch.Tensor, draw: tuple[int, int, int]) -> torch.Tensor:
    """Return an image after the random changes of one use of it; torch's own random state is left as it was.

    Args:
        augment: See ``build_augmentation``.
        pixels: uint8, shape (channels, size, size).
        draw: Seed, epoch and number of the image.
    """
    state = int(np.random.SeedSequence(draw).generate_state(1, np.uint64)[0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(state)
        return augment(pixels)
