"""Labelled images as arrays: scikit-learn's real handwritten digits, or a folder with one sub-folder a class.

Splits are stratified and depend on their own seed only, so that runs with other training seeds share one test set.
A folder's images are decoded once into a memory-mapped file, whatever their number; a damaged one is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.contracts.errors import EnvironmentProblem, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

DIGITS = "digits"
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MIN_IMAGES_PER_CLASS = 8
KeepGoing = Callable[[float], bool]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Images and labels.

    Attributes:
        pixels: uint8, shape (n, channels, size, size); may be memory-mapped.
        labels: int64, shape (n,), indices into ``classes``.
        classes: Names.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Indices of the three parts, int64, disjoint, sorted; their union is the whole set."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def list_images(folder: Path) -> list[tuple[Path, str]]:
    """Return image files with their class (the sub-folder's name), both sorted by name.

    Raises:
        OSError: A folder cannot be listed.
    """
    found: list[tuple[Path, str]] = []
    for class_folder in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = (p for p in sorted(class_folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        found += [(path, class_folder.name) for path in files]
    return found


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


def _square(image: Image.Image, image_size: int) -> Image.Image:
    """Cut the largest centred square out of an image and resize it."""
    from PIL import ImageOps

    return ImageOps.fit(ImageOps.exif_transpose(image), (image_size, image_size))


def _decode(path: Path, mode: str, image_size: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            decoded = np.asarray(_square(image.convert(mode), image_size))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged or no image"
        raise UserError(
            f"The image {path} cannot be read: {reason}.", "Remove or replace it, then start again."
        ) from error
    return decoded[None] if mode == "L" else decoded.transpose(2, 0, 1)


def load_folder_images(folder: Path, *, image_size: int, channels: int, cache: Path, keep_going: KeepGoing) -> ImageSet:
    """Decode a folder of images into ``cache`` (a memory-mapped file) and return them.

    Args:
        folder: One sub-folder a class.
        image_size: Side of the centred square each image is cut and resized to, in pixels.
        channels: 1 reads grey, 3 RGB.
        cache: File to write, ``n * channels * image_size ** 2`` bytes.
        keep_going: Told the share done; a False ends the reading early, with as many images as were read.

    Raises:
        UserError: No images, or one cannot be read (it is named).
        EnvironmentProblem: No space for the cache.
    """
    files = list_images(folder)
    if not files:
        raise UserError(f"There are no images in the sub-folders of {folder}.", "Make one sub-folder for each class.")
    classes = tuple(sorted({name for _, name in files}))
    labels = np.array([classes.index(name) for _, name in files], dtype=np.int64)
    shape = (len(files), channels, image_size, image_size)
    try:
        pixels = np.memmap(cache, dtype=np.uint8, mode="w+", shape=shape)
    except OSError as error:
        raise EnvironmentProblem(
            f"The images cannot be cached in {cache.parent}: {error.strerror}.", "Free some space."
        ) from error
    mode = "L" if channels == 1 else "RGB"
    for index, (path, _) in enumerate(files):
        pixels[index] = _decode(path, mode, image_size)
        if index % 16 == 0 and not keep_going(index / len(files)):
            break
    return ImageSet(pixels=pixels, labels=labels, classes=classes)


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
    chosen = indices[:: max(1, len(indices) // 4096)]
    sample = as_input(images.pixels[chosen])
    mean = sample.mean(axis=(0, 2, 3), dtype=np.float64)
    std = sample.std(axis=(0, 2, 3), dtype=np.float64)
    return tuple(mean.tolist()), tuple(np.maximum(std, 1e-3).tolist())
