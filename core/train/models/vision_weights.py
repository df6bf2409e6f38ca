"""Weights of image models from files, and from their publishers where that is asked for.

Reads safetensors, and pickles through torch's loader that builds nothing but tensors; never runs what a file says.
Importing this module imports torch; only worker code may do so.
"""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import torch

from core.contracts.errors import EnvironmentProblem, UserError

_SAFE_NAMES = ("model.safetensors", "pytorch_model.bin")
_PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt"})
_CONVERT = "Use a safetensors file, or save a plain dictionary of tensors."
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def _file_of(source: Path) -> Path:
    if source.is_file():
        return source
    found = [source / name for name in _SAFE_NAMES if (source / name).is_file()]
    found = found or sorted(source.glob("*.safetensors"))
    if not found:
        raise UserError(f"There are no weights at {source}.", "Name a .safetensors file or a folder with one.")
    return found[0]


def _tensors_in(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    """Return the named tensors in what a pickle held, looking one wrapper deep."""
    if isinstance(loaded, Mapping):
        entries = cast("Mapping[str, Any]", loaded)
        for wrapper in _WRAPPERS:
            if isinstance(entries.get(wrapper), Mapping):
                entries = cast("Mapping[str, Any]", entries[wrapper])
        tensors = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
        if tensors:
            return {name.removeprefix("module."): value for name, value in tensors.items()}
    raise UserError(f"{path} holds no named weights.", _CONVERT)


def read_weights(source: Path) -> dict[str, torch.Tensor]:
    """Return the named tensors of a file, or of the weights file of a folder, on the CPU.

    Raises:
        UserError: There is no such file, it is damaged, or it holds more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _file_of(source.expanduser())
    try:
        if path.suffix.lower() in _PICKLES:
            return _tensors_in(torch.load(path, map_location="cpu", weights_only=True), path)
        return load_file(path)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is damaged, or holds code besides weights and was not opened.", _CONVERT) from error
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise UserError(f"The weights {path} cannot be read: {error}", "Choose another file.") from error


def _from_torchvision(name: str) -> Mapping[str, torch.Tensor]:
    from torchvision.models import get_model_weights

    offered = get_model_weights(name)
    if not len(offered):
        raise UserError(
            f"torchvision has no published weights of {name}.", "Name a weights file, or train from nothing."
        )
    return next(iter(offered)).get_state_dict(check_hash=True)


def _from_timm(name: str) -> Mapping[str, torch.Tensor]:
    import timm

    return timm.create_model(name, pretrained=True).state_dict()


def _reason(error: OSError) -> str:
    """Return why something could not be fetched, in the first sentence of what the library says."""
    cause = error.reason if isinstance(error, URLError) else error
    words = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return words.partition(". ")[0].partition("\n")[0].rstrip(".")


def published_weights(architecture: str) -> Mapping[str, torch.Tensor]:
    """Return the weights that the publisher of ``torchvision:<name>`` or ``timm:<name>`` offers; fetched once, then cached.

    Raises:
        UserError: There are none.
        EnvironmentProblem: They cannot be fetched.
    """
    library, _, name = architecture.partition(":")
    sources = {"torchvision": _from_torchvision, "timm": _from_timm}
    if library not in sources:
        raise UserError(f"There are no published weights of the model {architecture}.", "Leave the weights empty.")
    try:
        return sources[library](name)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise EnvironmentProblem(
            f"The weights of {architecture} could not be fetched: {_reason(error)}.",
            "Check the network, or name a weights file of this machine.",
        ) from error
    except RuntimeError as error:
        raise UserError(f"There are no published weights of {architecture}: {error}", "Name a weights file.") from error
