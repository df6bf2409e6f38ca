"""``train.language``: trains a small causal language model on bytes, by default on Python's own standard library.

Text, model and learning task live in ``core.train.text_data`` and ``core.train.language_*``; the steps in
``core.train.loop``. Fine-tuning of published models is not its part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from core.contracts.errors import FieldProblem, UserError
from core.contracts.kinds import RunKind
from core.contracts.specs import Device, RunSpec, Seed
from core.contracts.worker import RunContext
from core.train.fields import extra
from core.train.space import check_space, checkpoint_bytes
from core.train.specs.checkpoints import CheckpointSpec
from core.train.specs.compute import Precision
from core.train.specs.optimizer import Beta2, OptimizerSpec, WeightDecay
from core.train.text_data import MAX_BYTES, STDLIB, list_texts, load_text

if TYPE_CHECKING:
    from core.train.language_model import LanguageModel
    from core.train.loop import TrainingLoop

_DATA = "Data"
_MODEL = "Model"
_TRAINING = "Training"
_SAMPLE_BYTES = 400


class LanguageOptimizerSpec(OptimizerSpec, frozen=True, kw_only=True):
    """The optimizer of language training: the faster second moment and stronger decay usual there."""

    beta2: Beta2 = 0.95
    weight_decay: WeightDecay = 0.1


class LanguageTrainingSpec(RunSpec, frozen=True, kw_only=True, tag="train.language"):
    """Train a byte-level language model."""

    data: Annotated[
        str,
        Meta(
            title="Text",
            min_length=1,
            description="'stdlib' for the source text of Python's standard library, or a text file or folder of text files.",
            extra_json_schema={**extra(_DATA), "path": "folder", "names": [STDLIB]},
        ),
    ] = STDLIB
    validation_fraction: Annotated[
        float,
        Meta(
            title="Validation part",
            ge=0.005,
            le=0.5,
            description="Share of the files held out to measure bits per byte.",
            extra_json_schema=extra(_DATA, advanced=True),
        ),
    ] = 0.05
    max_data_bytes: Annotated[
        int,
        Meta(
            title="Text limit",
            ge=1000,
            le=MAX_BYTES,
            description="At most this much text is read into memory.",
            extra_json_schema=extra(_DATA, "bytes", advanced=True),
        ),
    ] = 256 << 20
    num_layers: Annotated[
        int, Meta(title="Layers", ge=1, le=96, description="Transformer layers.", extra_json_schema=extra(_MODEL))
    ] = 4
    num_heads: Annotated[
        int,
        Meta(
            title="Attention heads",
            ge=1,
            le=128,
            description="The hidden size must be a multiple of twice this number.",
            extra_json_schema=extra(_MODEL, advanced=True),
        ),
    ] = 4
    hidden: Annotated[
        int,
        Meta(
            title="Hidden size",
            ge=8,
            le=8192,
            description="Width of the model; 128 to 256 trains in minutes on a CPU.",
            extra_json_schema=extra(_MODEL),
        ),
    ] = 128
    context_bytes: Annotated[
        int,
        Meta(
            title="Context",
            ge=8,
            le=65_536,
            description="How far back the model looks.",
            extra_json_schema=extra(_MODEL, "bytes"),
        ),
    ] = 128
    steps: Annotated[
        int,
        Meta(title="Steps", ge=1, le=10**9, description="Optimizer steps.", extra_json_schema=extra(_TRAINING)),
    ] = 400
    micro_batch: Annotated[
        int,
        Meta(
            title="Batch",
            ge=1,
            le=65_536,
            description="Windows of text per forward pass; halve it when memory runs out.",
            extra_json_schema=extra(_TRAINING, "windows"),
        ),
    ] = 16
    evaluate_every: Annotated[
        int,
        Meta(
            title="Validate every",
            ge=1,
            le=10**9,
            description="Optimizer steps between two validations; the best weights are kept.",
            extra_json_schema=extra(_TRAINING, "steps", advanced=True),
        ),
    ] = 50
    prompt: Annotated[
        str,
        Meta(
            title="Prompt",
            min_length=1,
            description="The finished model continues this text as a sample.",
            extra_json_schema=extra(_TRAINING, advanced=True),
        ),
    ] = "def "
    temperature: Annotated[
        float,
        Meta(
            title="Sampling temperature",
            gt=0,
            le=5,
            description="Lower is more cautious; 0.7 to 1 is usual.",
            extra_json_schema=extra(_TRAINING, advanced=True),
        ),
    ] = 0.7
    seed: Annotated[Seed, Meta(extra_json_schema=extra(_TRAINING, advanced=True))] = 0
    device: Annotated[
        Device,
        Meta(title="Device", description="'auto' takes the fastest there is.", extra_json_schema=extra(_TRAINING)),
    ] = "auto"
    precision: Precision = "fp32"
    optimizer: Annotated[LanguageOptimizerSpec, Meta(title="Optimizer")] = LanguageOptimizerSpec()
    checkpoints: Annotated[CheckpointSpec, Meta(title="Checkpoints")] = CheckpointSpec()


def room_bytes(spec: LanguageTrainingSpec) -> int:
    """Return the room that the checkpoints take."""
    parameters = spec.hidden * (256 + 12 * spec.hidden * spec.num_layers)
    averaged = spec.optimizer.ema_decay > 0
    return checkpoint_bytes(parameters, averaged=averaged, keep_last=spec.checkpoints.keep_last)


def check(spec: LanguageTrainingSpec) -> tuple[FieldProblem, ...]:
    """Look at the text and at how the fields fit together."""
    problems: list[FieldProblem] = []
    try:
        files = list_texts(spec.data)
        size = sum(path.stat().st_size for path in files)
    except OSError as error:
        message = f"{spec.data} cannot be read: {error.strerror}."
        problems.append(
            FieldProblem(field="data", message=message, hint="Choose a text file or a folder of text files.")
        )
    else:
        needed = int((spec.context_bytes + 2) / min(spec.validation_fraction, 0.5))
        if size < needed:
            message = f"there are {size:,} bytes of text in {len(files)} files."
            hint = f"At least {needed:,} bytes are needed for this context and validation part."
            problems.append(FieldProblem(field="data", message=message, hint=hint))
    problems += check_space(room_bytes(spec), "The checkpoints")
    if spec.hidden % (2 * spec.num_heads) != 0:
        message = f"{spec.hidden} cannot be shared among {spec.num_heads} heads."
        hint = f"Use a multiple of {2 * spec.num_heads}."
        problems.append(FieldProblem(field="hidden", message=message, hint=hint))
    return tuple(problems)


def _build_loop(spec: LanguageTrainingSpec, context: RunContext) -> tuple[TrainingLoop, LanguageModel]:
    from accelerate.utils import set_seed

    from core.train.device import make_accelerator
    from core.train.language_learning import LanguageLearning
    from core.train.language_model import LanguageModel, LanguageModelConfig
    from core.train.loop import LoopPlan, TrainingLoop

    text = load_text(spec.data, spec.validation_fraction, spec.max_data_bytes)
    if min(len(text.train), len(text.validation)) < spec.context_bytes + 2:
        raise UserError(
            f"{spec.data} has too little text: {len(text.train)} bytes to train on, {len(text.validation)} to validate.",
            "Add text or shorten the context.",
        )
    accum = spec.optimizer.grad_accum_steps
    accelerator = make_accelerator(spec.device, spec.precision, accum)
    set_seed(spec.seed)
    model = LanguageModel(
        LanguageModelConfig(
            num_layers=spec.num_layers,
            num_heads=spec.num_heads,
            hidden=spec.hidden,
            context_bytes=spec.context_bytes,
        )
    )
    context.log(
        f"{len(text.train):,} bytes of text to train on, {len(text.validation):,} held out, from {text.num_files} files; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters; {spec.steps} steps on {accelerator.device}."
    )
    task = LanguageLearning(
        context, text, length=spec.context_bytes, micro_batch=spec.micro_batch, accum=accum, seed=spec.seed
    )
    plan = LoopPlan(
        total_steps=spec.steps,
        evaluate_every=spec.evaluate_every,
        optimizer=spec.optimizer,
        checkpoints=spec.checkpoints,
    )
    return TrainingLoop(context, accelerator, model, task, plan), model


def _finish(spec: LanguageTrainingSpec, context: RunContext, loop: TrainingLoop, model: LanguageModel) -> None:
    """Write the best weights and a sample of what they say."""
    from safetensors.torch import save_model

    from core.train.language_model import generate

    loop.load_best()
    context.progress(0.5, "Writing the model")
    context.result({**loop.best_values, "train_seconds": loop.train_seconds})
    weights = context.artifacts_dir / "model.safetensors"
    save_model(model, str(weights), metadata={"format": model.config.format})
    config = context.artifacts_dir / "model.json"
    config.write_bytes(msgspec.json.format(msgspec.json.encode(model.config), indent=2))
    parameters = sum(p.numel() for p in model.parameters())
    bits = loop.best_values["val/bits_per_byte"]
    context.artifact(weights, kind="model.language", meta={"parameters": parameters, "bits_per_byte": bits})
    context.artifact(config, kind="model.config")
    text = generate(model, spec.prompt.encode(), _SAMPLE_BYTES, temperature=spec.temperature, seed=spec.seed)
    sample = context.artifacts_dir / "sample.txt"
    sample.write_text(text.decode("utf-8", errors="replace"), encoding="utf-8")
    context.artifact(sample, kind="text.sample")
    context.log(f"{bits:.3f} bits per byte on held-out files. The model continues {spec.prompt!r}:")
    context.log(sample.read_text(encoding="utf-8"))
    context.progress(1.0, "Done")


def run(spec: LanguageTrainingSpec, context: RunContext) -> None:
    """Train, write the model, and let it speak."""
    context.progress(0.0, "Reading text")
    loop, model = _build_loop(spec, context)
    if loop.run():
        _finish(spec, context, loop, model)


KIND = RunKind(
    spec=LanguageTrainingSpec,
    title="Language model",
    summary="Trains a small byte-level language model on text and measures it in bits per byte on held-out files.",
    group="train",
    icon="language",
    run=run,
    check=check,
    checkpoint_bytes=room_bytes,
    examples=("stdlib-lm.toml",),
)
