"""A user's Python file as the parts of a training: loads it from its path and calls its functions.

Whatever the user's code raises becomes one sentence with file and line; the whole traceback is printed into the run's
output. Which functions a file has, and what they return, is in ``docs/guide/custom-training.md``. Importing this module
imports torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sized
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from core.contracts.errors import EnvironmentProblem, PilothouseError, UserError
from core.jobs.triage import classify
from core.train.custom_file import as_settings

_MODULE_NAME = "pilothouse_custom_training"


def _place(error: BaseException, path: Path) -> str:
    """Return file and line where the user's code failed: the innermost frame in the folder of their file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(path.parent.resolve())]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frame = next(iter(reversed(own)), frames[-1] if frames else None)
    return str(path) if frame is None else f"{frame.filename}, line {frame.lineno}"


@contextlib.contextmanager
def told_as_users(path: Path, what: str) -> Generator[None]:
    """Turn what the user's code raises into a sentence that names its file and line.

    Errors that are ours already, memory that ran out, and failed communication pass as they are.
    """
    try:
        yield
    except (PilothouseError, torch.OutOfMemoryError, torch.distributed.DistError):
        raise
    except Exception as error:
        if _is_of_another_rank(error):
            raise
        traceback.print_exception(error)
        told = f"{type(error).__name__}: {error}".strip().removesuffix(":").splitlines()[0]
        raise UserError(
            f"{what} failed in {_place(error, path)}: {told.rstrip('.')}.", "Correct the file, then start again."
        ) from error


def _is_of_another_rank(error: Exception) -> bool:
    """Tell whether the user's code only met what another rank's failure did to the exchange between them."""
    if not torch.distributed.is_initialized():
        return False
    diagnosis = classify(f"{type(error).__name__}: {error}")
    return diagnosis is not None and diagnosis.is_secondary


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file.", "Name a file that ends in .py.")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE_NAME] = module  # where pickle and dataclasses look for the user's classes
    with told_as_users(path, "Loading the training file"):
        spec.loader.exec_module(module)
    return module


class CustomModule:
    """The functions of a user's file, called with sentences for errors.

    Args:
        path: The file.
        settings: Passed to its functions, numbers and truth values made from their text.

    Raises:
        EnvironmentProblem: It cannot be read.
        UserError: It fails, or lacks a function.
    """

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        if not path.is_file():
            raise EnvironmentProblem(f"There is no file {path}.", "Name the Python file of the training.")
        self.path = path
        self._settings = as_settings(settings)
        self._module = _load(path)

    def has(self, name: str) -> bool:
        """Return whether the file defines a function."""
        return callable(getattr(self._module, name, None))

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function of the file.

        Raises:
            UserError: It is not there.
        """
        if not self.has(name):
            raise UserError(f"{self.path} defines no function {name}.", "See the guide on custom training.")
        return cast("Callable[..., Any]", getattr(self._module, name))

    def call(self, name: str, *arguments: Any) -> Any:
        """Return what a function of the file returns.

        Raises:
            UserError: It is not there, or it failed.
        """
        function = self.function(name)
        with told_as_users(self.path, f"{name}()"):
            return function(*arguments)

    def model(self) -> nn.Module:
        """Return the user's model.

        Raises:
            UserError: It is no module, or has no weights.
        """
        made = self.call("model", dict(self._settings))
        if not isinstance(made, nn.Module) or not any(True for _ in made.parameters()):
            raise UserError(f"model() in {self.path} returned no torch.nn.Module with weights.", "Return the model.")
        return made

    def data(self) -> tuple[Any, Any]:
        """Return the user's training and validation set; the second may be None.

        Raises:
            UserError: They are no map-style data sets, or the first is empty.
        """
        made = self.call("data", dict(self._settings))
        parts = cast("tuple[Any, ...]", made) if isinstance(made, tuple) else (made, None)
        if len(parts) != 2:
            raise UserError(f"data() in {self.path} returned {len(parts)} things.", "Return (training, validation).")
        for name, part in zip(("training", "validation"), parts, strict=True):
            if name == "validation" and part is None:
                continue
            if not isinstance(part, Sized) or not hasattr(part, "__getitem__"):
                hint = "Return data sets with __len__ and __getitem__; validation may be None."
                raise UserError(f"The {name} part that data() in {self.path} returned has no length or no items.", hint)
            if len(part) == 0:
                raise UserError(
                    f"The {name} part that data() in {self.path} returned is empty.", "Return some samples."
                )
        return parts[0], parts[1]
