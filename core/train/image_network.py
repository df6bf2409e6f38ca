"""The small image classifier of ``train.image`` as plain torch modules, and the description of any of its models.

A network is described by a ``ImageNetworkConfig`` (stored as ``model.json``) and its weights (``model.safetensors``):
nothing is ever unpickled. Networks of other libraries are in ``core.train.models.vision``. Importing this module imports
torch; only worker code may do so.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from torch import nn

from core.contracts.errors import UserError

MODEL_FORMAT = "pilothouse.image-network"
SMALL = "small"


class ImageNetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Architecture of an image classifier and what its numbers mean.

    Attributes:
        architecture: ``small`` (``ImageNetwork``), ``torchvision:<name>`` or ``timm:<name>``.
        channels: 1 for grey, 3 for RGB.
        image_size: Height and width of the input in pixels.
        widths: Of the small network: channels of each stage; every stage after the first halves the image.
        classes: Names in the order of the outputs.
        mean: Mean of a pixel in [0, 1] per channel over the training part; subtracted inside the network.
        std: Standard deviation likewise.
        dropout: Share of features dropped before the last layer while training.
    """

    channels: int
    image_size: int
    widths: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dropout: float = 0.0
    architecture: str = SMALL
    format: str = MODEL_FORMAT
    version: int = 1


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ImageNetwork(nn.Module):
    """A plain convolutional network: two 3x3 convolutions a stage, global average, one linear layer.

    Takes pixels in [0, 1], float32, shape (batch, channels, size, size); gives logits, shape (batch, classes).
    """

    mean: torch.Tensor
    inverse_std: torch.Tensor

    def __init__(self, config: ImageNetworkConfig) -> None:
        super().__init__()
        shape = (1, config.channels, 1, 1)
        self.register_buffer("mean", torch.tensor(config.mean).reshape(shape))
        self.register_buffer("inverse_std", 1.0 / torch.tensor(config.std).reshape(shape))
        blocks: list[nn.Module] = []
        inputs = config.channels
        for index, width in enumerate(config.widths):
            blocks += [_block(inputs, width, 1 if index == 0 else 2), _block(width, width, 1)]
            inputs = width
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(inputs, len(config.classes))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        normal = (pixels - self.mean) * self.inverse_std
        return self.classifier(self.dropout(self.pool(self.features(normal)).flatten(1)))


def read_config(model_json: Path) -> ImageNetworkConfig:
    """Return the architecture in a ``model.json``.

    Raises:
        UserError: It is missing, damaged or of another format.
    """
    try:
        config = msgspec.json.decode(model_json.read_bytes(), type=ImageNetworkConfig)
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(
            f"{model_json.name} does not describe a model: {error}.", "Choose the model of another run."
        ) from error
    if config.format != MODEL_FORMAT or config.version != 1:
        raise UserError(
            f"{model_json.name} is of format {config.format} {config.version}.", "Update Pilothouse to read it."
        )
    return config
