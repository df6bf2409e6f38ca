"""``train.image``: trains a small convolutional network to classify images, and measures it on a held-out part.

The best epoch is chosen on the validation part; the test part is looked at once, at the end. Loading, learning and
exporting live in ``core.train.image_*``; the steps in ``core.train.loop``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from core.contracts.errors import FieldProblem
from core.contracts.kinds import RunKind
from core.contracts.specs import Device, RunSpec, Seed
from core.contracts.worker import RunContext
from core.train.augmentation import AugmentationSpec
from core.train.fields import extra
from core.train.image_data import DIGITS, MIN_IMAGES_PER_CLASS, ImageSet, Split
from core.train.space import check_space, checkpoint_bytes
from core.train.specs.checkpoints import CheckpointSpec
from core.train.specs.compute import Precision
from core.train.specs.optimizer import EmaDecay, OptimizerSpec

if TYPE_CHECKING:
    from core.train.image_learning import Scores
    from core.train.image_network import ImageNetworkConfig
    from core.train.loop import TrainingLoop

_MODEL = "Model"
_DATA = "Data"
_TRAINING = "Training"
_LARGEST_TABLE = 30
_STAGE_WIDTHS = (1, 2, 4, 4, 4)


class ImageOptimizerSpec(OptimizerSpec, frozen=True, kw_only=True):
    """The optimizer of image training: validates and exports averaged weights."""

    ema_decay: EmaDecay = 0.98


class ImageTrainingSpec(RunSpec, frozen=True, kw_only=True, tag="train.image"):
    """Train an image classifier."""

    data: Annotated[
        str,
        Meta(
            title="Images",
            min_length=1,
            description="'digits' for 1,797 handwritten digits, or a folder with one sub-folder of images for each class.",
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
    loading_processes: Annotated[
        int,
        Meta(
            title="Loading processes",
            ge=0,
            le=64,
            description="Processes that prepare batches beside the training; 0 prepares them in it.",
            extra_json_schema=extra(_DATA, advanced=True),
        ),
    ] = 0
    width: Annotated[
        int,
        Meta(
            title="Width",
            ge=4,
            le=512,
            description="Channels of the first stage; later stages have two and four times as many.",
            extra_json_schema=extra(_MODEL, "channels"),
        ),
    ] = 24
    stages: Annotated[
        int,
        Meta(
            title="Stages",
            ge=1,
            le=len(_STAGE_WIDTHS),
            description="Each stage is two convolutions; every one after the first halves the image. 3 for digits, 5 for photographs.",
            extra_json_schema=extra(_MODEL),
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
    epochs: Annotated[
        int,
        Meta(
            title="Epochs",
            ge=1,
            le=100_000,
            description="Passes over the training part.",
            extra_json_schema=extra(_TRAINING),
        ),
    ] = 20
    micro_batch: Annotated[
        int,
        Meta(
            title="Batch",
            ge=1,
            le=65_536,
            description="Images per forward pass; halve it when memory runs out.",
            extra_json_schema=extra(_TRAINING, "images"),
        ),
    ] = 32
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
    seed: Annotated[Seed, Meta(extra_json_schema=extra(_TRAINING, advanced=True))] = 0
    device: Annotated[
        Device,
        Meta(title="Device", description="'auto' takes the fastest there is.", extra_json_schema=extra(_TRAINING)),
    ] = "auto"
    precision: Precision = "fp32"
    optimizer: Annotated[ImageOptimizerSpec, Meta(title="Optimizer")] = ImageOptimizerSpec()
    augmentation: Annotated[AugmentationSpec, Meta(title="Augmentation")] = AugmentationSpec()
    checkpoints: Annotated[CheckpointSpec, Meta(title="Checkpoints")] = CheckpointSpec()


def _check_folder(folder: Path) -> tuple[FieldProblem, ...]:
    from core.train.image_data import list_images

    try:
        files = list_images(folder)
    except OSError as error:
        hint = "Choose a folder, or write 'digits'."
        return (FieldProblem(field="data", message=f"{folder} cannot be read: {error.strerror}.", hint=hint),)
    counts: dict[str, int] = {}
    for _, name in files:
        counts[name] = counts.get(name, 0) + 1
    if len(counts) < 2:
        return (
            FieldProblem(
                field="data",
                message=f"{folder} has images of {'1 class' if counts else 'no class'}.",
                hint="Make one sub-folder of images for each class, at least two.",
            ),
        )
    scarce = [f"{name} ({count})" for name, count in counts.items() if count < MIN_IMAGES_PER_CLASS]
    if scarce:
        hint = f"Each class needs at least {MIN_IMAGES_PER_CLASS}."
        return (FieldProblem(field="data", message=f"too few images in {', '.join(scarce[:5])}.", hint=hint),)
    return ()


def _widths(spec: ImageTrainingSpec) -> tuple[int, ...]:
    return tuple(spec.width * factor for factor in _STAGE_WIDTHS[: spec.stages])


def _parameters(spec: ImageTrainingSpec) -> int:
    """Return roughly how many weights the network has: its 3x3 convolutions."""
    widths = _widths(spec)
    return sum(9 * width * (width + before) for before, width in zip((3, *widths), widths, strict=False))


def room_bytes(spec: ImageTrainingSpec) -> int:
    """Return the room that the checkpoints take."""
    averaged = spec.optimizer.ema_decay > 0
    return checkpoint_bytes(_parameters(spec), averaged=averaged, keep_last=spec.checkpoints.keep_last)


def check(spec: ImageTrainingSpec) -> tuple[FieldProblem, ...]:
    """Look at the image folder and at how the fields fit together."""
    problems: list[FieldProblem] = []
    if spec.data != DIGITS:
        problems += _check_folder(Path(spec.data).expanduser())
    if spec.image_size < 2 ** (spec.stages - 1):
        message = f"{spec.stages} stages halve {spec.image_size} px to nothing."
        problems.append(FieldProblem(field="stages", message=message, hint="Use fewer stages or larger images."))
    problems += check_space(room_bytes(spec), "The checkpoints")
    if spec.test_fraction + spec.validation_fraction > 0.8:
        message = "test and validation part leave too little to train on."
        problems.append(FieldProblem(field="test_fraction", message=message, hint="Keep their sum at 0.8 or below."))
    return tuple(problems)


def _load(spec: ImageTrainingSpec, context: RunContext) -> ImageSet:
    from core.train import image_data

    if spec.data == DIGITS:
        return image_data.load_digits_images(spec.image_size)

    def keep_going(done: float) -> bool:
        context.progress(done, "Reading images")
        return not context.should_stop()

    return image_data.load_folder_images(
        Path(spec.data).expanduser(),
        image_size=spec.image_size,
        channels=3 if spec.color else 1,
        cache=context.scratch_dir / "images.u8",
        keep_going=keep_going,
    )


def _configure(spec: ImageTrainingSpec, images: ImageSet, split: Split) -> ImageNetworkConfig:
    from core.train.image_data import channel_statistics
    from core.train.image_network import ImageNetworkConfig

    mean, std = channel_statistics(images, split.train)
    return ImageNetworkConfig(
        channels=images.pixels.shape[1],
        image_size=spec.image_size,
        widths=_widths(spec),
        classes=images.classes,
        mean=mean,
        std=std,
        dropout=spec.dropout,
    )


def _build_loop(
    spec: ImageTrainingSpec, context: RunContext, images: ImageSet, split: Split, config: ImageNetworkConfig
) -> TrainingLoop:
    from accelerate.utils import set_seed

    from core.train.device import make_accelerator
    from core.train.image_batches import BatchSpec, ImageBatches, build_augmentation
    from core.train.image_learning import ImageLearning
    from core.train.image_network import ImageNetwork
    from core.train.loop import LoopPlan, TrainingLoop

    accum = spec.optimizer.grad_accum_steps
    accelerator = make_accelerator(spec.device, spec.precision, accum)
    set_seed(spec.seed)
    batch_spec = BatchSpec(
        micro_batch=spec.micro_batch, grad_accum_steps=accum, loading_processes=spec.loading_processes
    )
    batches = ImageBatches(
        images, split.train, batch_spec, build_augmentation(spec.augmentation, spec.image_size), spec.seed
    )
    model = ImageNetwork(config)
    plan = LoopPlan(
        total_steps=spec.epochs * batches.steps_per_epoch,
        evaluate_every=batches.steps_per_epoch,
        optimizer=spec.optimizer,
        checkpoints=spec.checkpoints,
    )
    context.log(
        f"{len(split.train)} images to train on, {len(split.validation)} to validate, {len(split.test)} to test; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters; {plan.total_steps} steps on {accelerator.device}."
    )
    task = ImageLearning(context, images, split.validation, batches, spec.label_smoothing)
    return TrainingLoop(context, accelerator, model, task, plan)


def _publish_confusion(context: RunContext, images: ImageSet, split: Split, found: Scores) -> None:
    """Publish who is taken for whom: the whole matrix, or for many classes the most frequent mistakes."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(images.labels[split.test], found.predicted, labels=range(len(images.classes)))
    if len(images.classes) <= _LARGEST_TABLE:
        rows = [[name, *(int(count) for count in row)] for name, row in zip(images.classes, matrix, strict=True)]
        context.table("Confusion (rows: true class)", ["true", *images.classes], rows)
        return
    mistakes = [
        (int(matrix[true, taken]), images.classes[true], images.classes[taken])
        for true, taken in zip(*matrix.nonzero(), strict=True)
        if true != taken
    ]
    rows = [[true, taken, count] for count, true, taken in sorted(mistakes, reverse=True)[:_LARGEST_TABLE]]
    context.table("Most frequent mistakes", ["true", "taken for", "images"], rows)


def _finish(
    spec: ImageTrainingSpec,
    context: RunContext,
    loop: TrainingLoop,
    data: tuple[ImageSet, Split],
    config: ImageNetworkConfig,
) -> None:
    """Measure the best weights on the test part, once, and write everything the run leaves behind."""
    from core.train.image_export import write_data, write_model
    from core.train.image_learning import score
    from core.train.image_network import ImageNetwork

    images, split = data
    model = loop.load_best()
    assert isinstance(model, ImageNetwork)
    context.progress(0.0, "Measuring the test part")
    found = score(model, images, split.test, context)
    if found is None:
        return
    context.result({"test/accuracy": found.accuracy, "test/loss": found.loss, "train_seconds": loop.train_seconds})
    _publish_confusion(context, images, split, found)
    write_data(context, images, split, spec.split_seed)
    probe = ImageSet(
        pixels=images.pixels[split.test[:64]], labels=images.labels[split.test[:64]], classes=images.classes
    )
    write_model(context, model, config, probe, found.accuracy)
    context.progress(1.0, "Done")
    context.log(
        f"Test accuracy {found.accuracy:.2%} on {len(split.test)} images with the weights of step {loop.best_step}; "
        f"trained for {loop.train_seconds:.1f} s."
    )


def run(spec: ImageTrainingSpec, context: RunContext) -> None:
    """Train, measure and export."""
    from core.train.image_data import split_images

    context.progress(0.0, "Loading images")
    images = _load(spec, context)
    if context.should_stop():
        return
    split = split_images(
        images, test_fraction=spec.test_fraction, validation_fraction=spec.validation_fraction, seed=spec.split_seed
    )
    config = _configure(spec, images, split)
    loop = _build_loop(spec, context, images, split, config)
    if loop.run():
        _finish(spec, context, loop, (images, split), config)


KIND = RunKind(
    spec=ImageTrainingSpec,
    title="Image classifier",
    summary="Trains a convolutional network to tell classes of images apart, and measures it on a held-out part.",
    group="train",
    icon="image",
    run=run,
    check=check,
    checkpoint_bytes=room_bytes,
    examples=("digits.toml",),
)
