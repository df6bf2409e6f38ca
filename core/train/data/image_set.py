"""Labelled images as arrays, and their split into three parts.

Splits are stratified and depend on their own seed only, so that runs with other training seeds share one test part. The
pixels may be decoded when they are asked for; see ``core.train.data.images``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from core.contracts.errors import UserError
from core.train.specs.image_data import MIN_IMAGES_PER_CLASS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_MEASURED_IMAGES = 4096
_MOST_MEASURED_VALUES = 1 << 26


class LazyPixels(Protocol):
    """Images that are decoded when asked for, indexed like a uint8 array of shape (n, channels, size, size)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n, channels, size, size)."""
        ...

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Return one image, (channels, size, size), for a number, or several for an array or slice of numbers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Images and labels.

    Attributes:
        pixels: uint8, shape (n, channels, size, size); memory-mapped or decoded when asked for.
        labels: int64, shape (n,), indices into ``classes``.
        classes: Names.
    """

    pixels: NDArray[np.uint8] | LazyPixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Indices of the three parts, int64, disjoint, sorted; their union is the whole set."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def load_digits_images(image_size: int) -> ImageSet:
    """Return scikit-learn's 1,797 handwritten digits (8x8, 17 grey levels), resized bilinearly to ``image_size``."""
    from PIL import Image
    from sklearn.datasets import load_digits

    raw, target = load_digits(return_X_y=True)
    small = np.round(raw.reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    pixels = np.stack(
        [np.asarray(Image.fromarray(one).resize((image_size, image_size), Image.Resampling.BILINEAR)) for one in small]
    )
    return ImageSet(pixels=pixels[:, None], labels=target.astype(np.int64), classes=tuple("0123456789"))


def split_images(images: ImageSet, *, test_fraction: float, validation_fraction: float, seed: int) -> Split:
    """Return a stratified split into train, validation and test part; fractions are of the whole set.

    Raises:
        UserError: A class has too few images to be in all three parts.
    """
    from sklearn.model_selection import train_test_split

    counts = np.bincount(images.labels, minlength=len(images.classes))
    scarce = [
        f"{name} ({count})" for name, count in zip(images.classes, counts, strict=True) if count < MIN_IMAGES_PER_CLASS
    ]
    if scarce:
        raise UserError(
            f"Too few images in {', '.join(scarce[:5])}.", f"Each class needs at least {MIN_IMAGES_PER_CLASS} images."
        )
    everything = np.arange(len(images.labels))
    try:
        rest, test = train_test_split(everything, test_size=test_fraction, stratify=images.labels, random_state=seed)
        train, validation = train_test_split(
            rest,
            test_size=validation_fraction / (1.0 - test_fraction),
            stratify=images.labels[rest],
            random_state=seed,
        )
    except ValueError as error:
        raise UserError(
            "The parts are too small to hold an image of every class.", "Raise the shares or add images."
        ) from error
    return Split(train=np.sort(train), validation=np.sort(validation), test=np.sort(test))


def as_input(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return uint8 pixels as the network's input: float32 in [0, 1]."""
    return np.asarray(pixels, dtype=np.float32) / np.float32(255.0)


def channel_statistics(images: ImageSet, indices: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of pixels in [0, 1], over at most 4,096 of the given images."""
    most = max(64, min(_MOST_MEASURED_IMAGES, _MOST_MEASURED_VALUES // int(np.prod(images.pixels.shape[1:]))))
    chosen = indices[:: max(1, len(indices) // most)]
    sample = as_input(images.pixels[chosen])
    mean = sample.mean(axis=(0, 2, 3), dtype=np.float64)
    std = sample.std(axis=(0, 2, 3), dtype=np.float64)
    return tuple(mean.tolist()), tuple(np.maximum(std, 1e-3).tolist())
