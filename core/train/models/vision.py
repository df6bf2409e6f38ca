"""Image classifiers by name: our small network, or any of the installed torchvision and timm libraries.

The last layer is made for the classes at hand, and normalization is part of the network, so that every exported form
takes pixels in [0, 1]. Weights come from a file (safetensors, or a pickle that holds nothing but tensors), from nothing,
or, where asked for, from the library's publisher. Importing this module imports torch; only worker code may do so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.image_network import SMALL, ImageNetwork, ImageNetworkConfig, read_config
from core.train.models.vision_weights import published_weights, read_weights

_WITH_AUXILIARY_OUTPUTS = ("googlenet", "inception_v3")
_BACKBONE_CHANNELS = 3
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VisionNetwork(nn.Module):
    """A classifier of torchvision or timm behind our normalization.

    Takes pixels in [0, 1], float32, shape (batch, channels, size, size), grey ones as three equal channels; gives
    logits, shape (batch, classes).
    """

    mean: torch.Tensor
    inverse_std: torch.Tensor

    def __init__(self, config: ImageNetworkConfig) -> None:
        super().__init__()
        shape = (1, config.channels, 1, 1)
        self.register_buffer("mean", torch.tensor(config.mean).reshape(shape))
        self.register_buffer("inverse_std", 1.0 / torch.tensor(config.std).reshape(shape))
        self.backbone = _build_backbone(config, len(config.classes))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        normal = (pixels - self.mean) * self.inverse_std
        if normal.shape[1] == 1:
            normal = normal.expand(-1, _BACKBONE_CHANNELS, -1, -1)
        return self.backbone(normal)


def _torchvision_backbone(name: str, config: ImageNetworkConfig, classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UserError(
            f"torchvision has no classifier named {name}.",
            f"Write one of its names, such as {', '.join(('resnet18', 'mobilenet_v3_small', 'efficientnet_b0'))}.",
        )
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    if name.startswith("vit_"):
        options["image_size"] = config.image_size
    if name in _WITH_AUXILIARY_OUTPUTS:
        options |= {"aux_logits": False, "init_weights": True}
    return models.get_model(name, **options)


def _timm_backbone(name: str, config: ImageNetworkConfig, classes: int) -> nn.Module:
    import timm
    from timm.models import get_pretrained_cfg, is_model

    if not is_model(name):
        like = ", ".join(timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5])
        raise UserError(
            f"timm has no classifier named {name}.", f"Similar names: {like}." if like else "Write one of its names."
        )
    options: dict[str, Any] = {"pretrained": False, "num_classes": classes, "in_chans": _BACKBONE_CHANNELS}
    if config.dropout:
        options["drop_rate"] = config.dropout
    published = get_pretrained_cfg(name, allow_unregistered=True)
    if published is not None and published.fixed_input_size:
        options["img_size"] = config.image_size
    return timm.create_model(name, **options)


def normalization(architecture: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation per channel of the pixels in [0, 1] that published weights of a model expect.

    Args:
        architecture: ``torchvision:<name>`` or ``timm:<name>``.
        channels: 1 gives the means over the colours.
    """
    library, _, name = architecture.partition(":")
    mean, std = _IMAGENET
    if library == "timm":
        from timm.models import get_pretrained_cfg

        published = get_pretrained_cfg(name, allow_unregistered=True)
        mean, std = (published.mean, published.std) if published is not None else (mean, std)
    if channels == 1:
        return (sum(mean) / len(mean),), (sum(std) / len(std),)
    return tuple(mean), tuple(std)


def _build_backbone(config: ImageNetworkConfig, classes: int) -> nn.Module:
    library, _, name = config.architecture.partition(":")
    builders = {"torchvision": _torchvision_backbone, "timm": _timm_backbone}
    if library not in builders:
        raise UserError(
            f"There is no image model named {config.architecture}.",
            "Write 'small', 'torchvision:<name>' or 'timm:<name>'.",
        )
    try:
        return builders[library](name, config, classes)
    except ImportError as error:
        raise EnvironmentProblem(f"The library {library} is not installed.", f"Install {library}.") from error
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"{config.architecture} cannot be built for images of {config.image_size} px: {error}",
            "Choose another image size or model.",
        ) from error


def _probe(network: nn.Module, config: ImageNetworkConfig) -> None:
    """Pass a black image through; raises UserError where the model cannot take this size or gives no logits."""
    network.eval()
    side = config.image_size
    try:
        with torch.no_grad():
            output = network(torch.zeros(1, config.channels, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{config.architecture} cannot take images of {side} px: {error}", "Use larger images or another model."
        ) from error
    if not isinstance(output, torch.Tensor) or output.shape != (1, len(config.classes)):
        raise UserError(f"{config.architecture} gives no score for each class.", "Choose another model.")
    network.train()


def build_network(config: ImageNetworkConfig) -> nn.Module:
    """Return the network of a configuration with fresh weights, drawn from torch's generator, on the CPU.

    Raises:
        UserError: There is no such model, or it cannot take such images.
        EnvironmentProblem: Its library is not installed.
    """
    network = ImageNetwork(config) if config.architecture == SMALL else VisionNetwork(config)
    _probe(network, config)
    return network


def _head_names(config: ImageNetworkConfig) -> set[str]:
    """Return the weights whose shape depends on the number of classes: the last layer's."""
    one_more = msgspec.structs.replace(config, classes=(*config.classes, "another"))
    with torch.device("meta"):
        build = ImageNetwork if config.architecture == SMALL else VisionNetwork
        first, second = build(config).state_dict(), build(one_more).state_dict()
    return {name for name, weight in first.items() if weight.shape != second[name].shape}


def _place(weights: Mapping[str, torch.Tensor], network: nn.Module, head: set[str], source: str) -> None:
    """Copy weights by name; only the last layer may be missing or of another size, and is then left as drawn."""
    own = network.state_dict()
    prefix = "" if isinstance(network, ImageNetwork) else "backbone."
    named = {name if name in own else prefix + name: weight for name, weight in weights.items()}
    optional = head | {"mean", "inverse_std"}
    misfits = sorted(n for n in own.keys() - optional if n not in named or named[n].shape != own[n].shape)
    foreign = sorted(n for n in named if n not in own and "aux" not in n.lower())
    if misfits or foreign:
        raise UserError(
            f"The weights {source} are of another model: {(misfits or foreign)[0].removeprefix(prefix)} "
            f"{'is missing or of another shape' if misfits else 'has no place'}.",
            "Choose the weights of the model that is named.",
        )
    fitting = {n: named[n] for n in own if n in named and named[n].shape == own[n].shape}
    network.load_state_dict(own | fitting)


def load_weights(network: nn.Module, config: ImageNetworkConfig, source: str) -> None:
    """Fill a network with weights learned before; the last layer only where it has the same classes.

    Args:
        network: Made by ``build_network``.
        config: Its configuration.
        source: A file or folder, or ``pretrained`` for what the library's publisher offers.

    Raises:
        UserError: They are of another model or cannot be read.
        EnvironmentProblem: They cannot be fetched.
    """
    found = published_weights(config.architecture) if source == "pretrained" else read_weights(Path(source))
    _place(found, network, _head_names(config), source)


def load_torch_model(model_json: Path, weights: Path) -> nn.Module:
    """Return the network of a finished ``train.image`` run on the CPU, in evaluation mode.

    Args:
        model_json: Its ``model.json``.
        weights: Its ``model.safetensors``.

    Raises:
        UserError: The files do not belong together or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    network = build_network(read_config(model_json))
    try:
        load_model(network, weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"The weights {weights.name} do not fit {model_json.name}: {error}", "Use both from one run."
        ) from error
    return network.eval()
