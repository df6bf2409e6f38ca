"""The images of a run: decoded, split, augmented, as parts for the engine.

A set whose pixels take little room is decoded once into a memory-mapped file of the cache, which all ranks and later runs
share; a larger one is decoded by the loading processes as images are needed. A damaged image is named, or left out before
the split where the spec says so. Batches: ``pixels`` (augmented: float32 in [0, 1]; else uint8), shape (batch, channels,
size, size), and ``labels`` int64.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.contracts.errors import Cancelled, UserError
from core.contracts.worker import RunContext
from core.train.augmentation import AugmentationSpec
from core.train.data.augment import augmented, build_augmentation
from core.train.data.image_files import ImageFiles, find_images
from core.train.data.image_set import ImageSet, Split, load_digits_images, split_images
from core.train.data.tokens import Made, key_of, made_once
from core.train.engine.contracts import Batch, DataPart, Mesh, SampleKey
from core.train.specs.image_data import DIGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torchvision.transforms import v2

_CACHE = "cache/images"
_MOST_CACHED_BYTES = 4 << 30
_CHUNK = 64
_PIXELS = "pixels.u8"
_DAMAGED = "damaged.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedImages:
    """Which images, and how.

    Attributes:
        data: ``digits``, a folder, a file or a URL.
        image_size: Side of the centred square that each image is cut and resized to, in pixels.
        channels: 1 reads grey, 3 RGB; digits are grey.
        test_fraction, validation_fraction: Shares of the whole set.
        split_seed: Fixes which image is of which part.
        seed: Fixes the augmentation.
        augmentation: Random changes of the training part.
        damaged: ``stop`` or ``skip``.
        most_cached_bytes: Sets with more pixels than this are decoded as they are needed.
    """

    data: str
    image_size: int
    channels: int
    test_fraction: float
    validation_fraction: float
    split_seed: int
    seed: int
    augmentation: AugmentationSpec
    damaged: str = "stop"
    most_cached_bytes: int = _MOST_CACHED_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageParts:
    """The images of a run: all of them with their split, and the two parts that the engine takes."""

    images: ImageSet
    split: Split
    training: DataPart
    validation: DataPart


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedPixels:
    """Images decoded when they are asked for; see ``LazyPixels``."""

    files: ImageFiles
    numbers: NDArray[np.int64]
    channels: int
    image_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n, channels, size, size)."""
        return (len(self.numbers), self.channels, self.image_size, self.image_size)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        chosen = self.numbers[index]
        if chosen.ndim == 0:
            return self.one(int(chosen))
        return np.stack([self.one(int(number)) for number in chosen])

    def one(self, number: int) -> NDArray[np.uint8]:
        """Return an image of the files."""
        return decode(self.files.raw(number), self.files.name(number), self.channels, self.image_size)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSamples:
    """Images of one part as samples, augmented or as they are."""

    images: ImageSet
    indices: NDArray[np.int64]
    augment: v2.Transform | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: SampleKey) -> tuple[torch.Tensor, int]:
        index = int(self.indices[key.number])
        pixels = torch.from_numpy(np.array(self.images.pixels[index]))
        if self.augment is not None:
            pixels = augmented(self.augment, pixels, (self.seed, key.epoch, index))
        return pixels, int(self.images.labels[index])


def collate_images(samples: Sequence[tuple[torch.Tensor, int]]) -> Batch:
    """Return ``pixels`` and ``labels`` of samples."""
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return {"pixels": torch.stack([pixels for pixels, _ in samples]), "labels": labels}


def decode(raw: bytes, name: str, channels: int, image_size: int) -> NDArray[np.uint8]:
    """Return an image turned upright, its largest centred square resized, uint8, shape (channels, size, size).

    Raises:
        UserError: It is damaged or no image; it is named.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(raw)) as image:
            converted = image.convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(ImageOps.fit(ImageOps.exif_transpose(converted), (image_size, image_size)))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"The image {name} cannot be read: it is damaged or no image.", "Remove or replace it, then start again."
        ) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def load_images(wanted: WantedImages, *, mesh: Mesh, context: RunContext) -> ImageSet:
    """Return all images of a source; every rank calls it, the first that comes decodes.

    Raises:
        UserError: No images, a label is wrong, or an image is damaged.
        EnvironmentProblem: The source does not answer, or the cache cannot be written.
        Cancelled: A stop was asked for.
    """
    if wanted.data == DIGITS:
        return load_digits_images(wanted.image_size)
    cache = context.home / _CACHE
    files = find_images(wanted.data, cache, context.should_stop)
    everything = np.arange(len(files.labels), dtype=np.int64)
    decoded = DecodedPixels(files=files, numbers=everything, channels=wanted.channels, image_size=wanted.image_size)
    is_stored = int(np.prod(decoded.shape)) <= wanted.most_cached_bytes
    if not is_stored and wanted.damaged == "stop":
        return ImageSet(pixels=decoded, labels=files.labels, classes=files.classes)
    maker = _PixelMaker(decoded, wanted.damaged == "skip", context, is_stored=is_stored)
    folder = cache / maker.key
    made = made_once(folder, maker.make, context.should_stop)
    if mesh.is_main:
        for note in made.notes:
            context.log(note, "warning")
    damaged: NDArray[np.int64] = np.load(folder / _DAMAGED)
    good = np.setdiff1d(everything, damaged)
    pixels: NDArray[np.uint8] | DecodedPixels = DecodedPixels(
        files=files, numbers=good, channels=wanted.channels, image_size=wanted.image_size
    )
    if is_stored:
        pixels = np.memmap(folder / _PIXELS, dtype=np.uint8, mode="r", shape=(len(good), *decoded.shape[1:]))
    return ImageSet(pixels=pixels, labels=files.labels[good], classes=files.classes)


def image_parts(wanted: WantedImages, *, mesh: Mesh, context: RunContext) -> ImageParts:
    """Return the images with their split, and the training and validation part; every rank calls it.

    Raises:
        UserError, EnvironmentProblem, Cancelled: See ``load_images``; also a class with too few images.
    """
    images = load_images(wanted, mesh=mesh, context=context)
    split = split_images(
        images,
        test_fraction=wanted.test_fraction,
        validation_fraction=wanted.validation_fraction,
        seed=wanted.split_seed,
    )
    augment = build_augmentation(wanted.augmentation, wanted.image_size)
    training = ImageSamples(images, split.train, augment, wanted.seed)
    return ImageParts(
        images=images,
        split=split,
        training=DataPart(samples=training, collate=collate_images),
        validation=DataPart(samples=ImageSamples(images, split.validation), collate=collate_images),
    )


class _PixelMaker:
    """Decodes all images once: into a file, or only to find the damaged ones.

    Args:
        decoded: The images.
        is_skipping: Damaged ones are left out rather than raised.
        context: Takes progress; asked whether to stop.
        is_stored: Write the pixels.
    """

    def __init__(self, decoded: DecodedPixels, is_skipping: bool, context: RunContext, *, is_stored: bool) -> None:
        self._decoded = decoded
        self._is_skipping = is_skipping
        self._context = context
        self._is_stored = is_stored
        sources = [(source.name, source.version) for source in decoded.files.sources]
        self.key = key_of("pixels", sources, decoded.shape, is_skipping, is_stored)

    def make(self, folder: Path) -> Made:
        """Write into a folder; see ``made_once``."""
        damaged: list[int] = []
        with (folder / _PIXELS).open("wb") as file:
            for number, pixels in self._all():
                if pixels is None:
                    damaged.append(number)
                elif self._is_stored:
                    file.write(pixels.tobytes())
        np.save(folder / _DAMAGED, np.array(damaged, dtype=np.int64))
        total = len(self._decoded.numbers)
        if damaged and len(damaged) == total:
            raise UserError(f"None of the {total} images can be read.", "Choose a folder of images.")
        notes = ()
        if damaged:
            shown = ", ".join(self._decoded.files.name(number) for number in damaged[:5])
            notes = (f"{len(damaged):,} of {total:,} images cannot be read and are left out, such as {shown}.",)
        return Made(names=(), dtype="uint8", is_counted=False, notes=notes)

    def _all(self) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        total = len(self._decoded.numbers)
        # Decoders work outside Python's lock, so threads use all cores.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for first in range(0, total, _CHUNK):
                self._context.progress(first / total, "Reading images")
                if self._context.should_stop():
                    raise Cancelled
                chunk = range(first, min(first + _CHUNK, total))
                yield from zip(chunk, pool.map(self._one, chunk), strict=True)

    def _one(self, number: int) -> NDArray[np.uint8] | None:
        try:
            return self._decoded.one(number)
        except UserError:
            if self._is_skipping:
                return None
            raise
