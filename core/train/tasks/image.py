"""``train.image``: trains a network to classify images, and measures it on a held-out part.

Our own small network, or any classifier of torchvision or timm. The fields and checks stand here; reading images is
``core.train.data.images``, learning ``core.train.image_learning``, exporting ``core.train.image_export``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from core.contracts.errors import FieldProblem
from core.contracts.estimates import MemoryEstimate
from core.contracts.kinds import RunKind
from core.contracts.worker import RunContext
from core.train.augmentation import AugmentationSpec
from core.train.checking import (
    check_distillation,
    check_parallel,
    check_space_of,
    estimate_of,
    ranks_of,
    room_of,
    train_on_ranks,
)
from core.train.data.checks import check_image_data, check_stream
from core.train.fields import extra
from core.train.models.shape import ModelShape
from core.train.specs.image_data import DIGITS, DamagedImages
from core.train.specs.optimizer import EmaDecay, OptimizerSpec
from core.train.specs.training import Epochs, TrainingSpec, micro_batch_of

_MODEL = "Model"
_DATA = "Data"
_TRAINING = "Training"
SMALL = "small"
PRETRAINED = "pretrained"
_LIBRARIES = ("torchvision", "timm")
_IS_SMALL: dict[str, object] = {"field": "model", "in": [SMALL]}
_STAGE_WIDTHS = (1, 2, 4, 4, 4)


class ImageOptimizerSpec(OptimizerSpec, frozen=True, kw_only=True):
    """The optimizer of image training: validates and exports averaged weights."""

    ema_decay: EmaDecay = 0.98


class ImageTrainingSpec(TrainingSpec, frozen=True, kw_only=True, tag="train.image"):
    """Train an image classifier."""

    data: Annotated[
        str,
        Meta(
            title="Images",
            min_length=1,
            description=(
                "'digits' for 1,797 handwritten digits, a folder with one sub-folder of images for each class, or WebDataset "
                ".tar or .parquet files; also by URL (s3://, webhdfs://, hdfs://)."
            ),
            extra_json_schema={**extra(_DATA), "path": "folder", "names": [DIGITS]},
        ),
    ] = DIGITS
    image_size: Annotated[
        int,
        Meta(
            title="Image size",
            ge=8,
            le=1024,
            description="Images are cut to a centred square and resized to this side; 16 for digits, 64 to 224 for photographs.",
            extra_json_schema=extra(_DATA, "px"),
        ),
    ] = 16
    damaged: DamagedImages = "stop"
    color: Annotated[
        bool,
        Meta(
            title="Colour",
            description="Reads a folder's images as RGB; off reads them as grey. Digits are grey.",
            extra_json_schema=extra(_DATA),
        ),
    ] = True
    test_fraction: Annotated[
        float,
        Meta(
            title="Test part",
            ge=0.05,
            le=0.5,
            description="Share of the images kept for the final measurement, never trained on.",
            extra_json_schema=extra(_DATA, advanced=True),
        ),
    ] = 0.25
    validation_fraction: Annotated[
        float,
        Meta(
            title="Validation part",
            ge=0.05,
            le=0.4,
            description="Share of the images that chooses the best epoch, never trained on.",
            extra_json_schema=extra(_DATA, advanced=True),
        ),
    ] = 0.12
    split_seed: Annotated[
        int,
        Meta(
            title="Split seed",
            ge=0,
            le=2**32 - 1,
            description="Fixes which images are in which part; keep it to compare runs on the same test part.",
            extra_json_schema=extra(_DATA, advanced=True),
        ),
    ] = 0
    model: Annotated[
        str,
        Meta(
            title="Model",
            min_length=1,
            description=(
                "'small' is our own network of the stages below; 'torchvision:resnet18', 'timm:mobilenetv3_small_100' and "
                "so on take any classifier of these libraries."
            ),
            extra_json_schema={**extra(_MODEL), "names": [SMALL, "torchvision:resnet18", "timm:mobilenetv3_small_100"]},
        ),
    ] = SMALL
    weights: Annotated[
        str,
        Meta(
            title="First weights",
            description=(
                "File or folder with weights of this model to start from, its last layer left out where the classes "
                "differ; 'pretrained' fetches the library's own; empty: drawn from the seed."
            ),
            extra_json_schema={**extra(_MODEL), "path": "file", "names": [PRETRAINED]},
        ),
    ] = ""
    width: Annotated[
        int,
        Meta(
            title="Width",
            ge=4,
            le=512,
            description="Channels of the first stage; later stages have two and four times as many.",
            extra_json_schema=extra(_MODEL, "channels", shown_if=_IS_SMALL),
        ),
    ] = 24
    stages: Annotated[
        int,
        Meta(
            title="Stages",
            ge=1,
            le=len(_STAGE_WIDTHS),
            description="Each stage is two convolutions; every one after the first halves the image. 3 for digits, 5 for photographs.",
            extra_json_schema=extra(_MODEL, shown_if=_IS_SMALL),
        ),
    ] = 3
    dropout: Annotated[
        float,
        Meta(
            title="Dropout",
            ge=0,
            le=0.9,
            description="Share of features dropped before the last layer while training.",
            extra_json_schema=extra(_MODEL, advanced=True),
        ),
    ] = 0.1
    epochs: Epochs = 20.0
    micro_batch: Annotated[int, micro_batch_of("images")] = 32
    label_smoothing: Annotated[
        float,
        Meta(
            title="Label smoothing",
            ge=0,
            le=0.5,
            description="Share of the target given to all classes alike; 0.05 to 0.1 usually helps.",
            extra_json_schema=extra(_TRAINING, advanced=True),
        ),
    ] = 0.05
    optimizer: Annotated[ImageOptimizerSpec, Meta(title="Optimizer")] = ImageOptimizerSpec()
    augmentation: Annotated[AugmentationSpec, Meta(title="Augmentation")] = AugmentationSpec()


def widths_of(spec: ImageTrainingSpec) -> tuple[int, ...]:
    """Return the channels of each stage of the small network."""
    return tuple(spec.width * factor for factor in _STAGE_WIDTHS[: spec.stages])


def shape_of(spec: ImageTrainingSpec) -> ModelShape:
    """Return the measures of the network: roughly the 3x3 convolutions of the small one; no count of others."""
    if spec.model != SMALL:
        return ModelShape(family="image")
    widths = widths_of(spec)
    count = sum(9 * width * (width + before) for before, width in zip((3, *widths), widths, strict=False))
    return ModelShape(family="image", parameters=count, trained_parameters=count)


def room_bytes(spec: ImageTrainingSpec) -> int | None:
    """Return the room that the checkpoints take; None for a model whose size is not known before it is built."""
    return room_of(spec, shape_of(spec))


def estimate(spec: ImageTrainingSpec) -> MemoryEstimate | None:
    """Return what the fullest rank needs of its device's memory; None where the model's size is not known."""
    return estimate_of(spec, shape_of(spec))


def _check_model(spec: ImageTrainingSpec) -> list[FieldProblem]:
    problems: list[FieldProblem] = []
    library, _, name = spec.model.partition(":")
    if spec.model != SMALL and (library not in _LIBRARIES or not name):
        hint = "Write 'small', 'torchvision:<name>' or 'timm:<name>'."
        problems.append(FieldProblem(field="model", message=f"there is no model {spec.model}.", hint=hint))
    if spec.model == SMALL and spec.image_size < 2 ** (spec.stages - 1):
        message = f"{spec.stages} stages halve {spec.image_size} px to nothing."
        problems.append(FieldProblem(field="stages", message=message, hint="Use fewer stages or larger images."))
    if spec.weights == PRETRAINED and spec.model == SMALL:
        hint = "Name a weights file, or leave it empty."
        problems.append(FieldProblem(field="weights", message="nobody publishes weights of the small one.", hint=hint))
    elif spec.weights not in ("", PRETRAINED) and not Path(spec.weights).expanduser().exists():
        message = f"there is no file or folder {spec.weights}."
        problems.append(FieldProblem(field="weights", message=message, hint="Name a .safetensors file."))
    return problems


def check(spec: ImageTrainingSpec) -> tuple[FieldProblem, ...]:
    """Look at the images, the model, the layout, the teacher and the disk, and at how the fields fit together."""
    problems: list[FieldProblem] = []
    problems += check_image_data(spec.data)
    problems += check_stream(spec.loading, spec.steps, can_stream=False)
    problems += _check_model(spec)
    if spec.test_fraction + spec.validation_fraction > 0.8:
        message = "test and validation part leave too little to train on."
        problems.append(FieldProblem(field="test_fraction", message=message, hint="Keep their sum at 0.8 or below."))
    problems += check_parallel(spec, shape_of(spec))
    problems += check_distillation(spec, is_augmented=any(msgspec.structs.astuple(spec.augmentation)))
    problems += check_space_of(spec, shape_of(spec))
    return tuple(problems)


def _rank_run(spec: ImageTrainingSpec, context: RunContext) -> None:
    """Train as one rank."""
    from core.train.image_learning import train_images

    train_images(spec, context)


KIND = RunKind(
    spec=ImageTrainingSpec,
    title="Image classifier",
    summary="Trains a network to tell classes of images apart, and measures it on a held-out part.",
    group="train",
    icon="image",
    run=train_on_ranks,
    rank_run=_rank_run,
    ranks=ranks_of,
    spans_nodes=True,
    check=check,
    checkpoint_bytes=room_bytes,
    estimate=estimate,
    examples=("digits.toml", "resnet.toml"),
)
