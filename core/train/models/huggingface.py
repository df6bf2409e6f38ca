"""Finds the files of a model: a folder, an earlier run, or the Hugging Face Hub; says plainly why there are none.

Reads JSON and the headers of weight files; no torch, no weights. Code that a model brings along is never run, and only
safetensors weights are accepted: a pickled file can run anything when it is read.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from core.contracts.errors import EnvironmentProblem, PilothouseError, UserError
from core.runlog.lineage import inherited_artifacts
from core.train.specs.model import PARENT

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
MODEL_KIND = "model.huggingface"
SAFE_LOADING: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
"""How a model of a folder is loaded, always: no pickles, no code of others, no network."""
_TOKENIZER_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
_MODEL_FILES = (*_TOKENIZER_FILES, "*.safetensors")
_MAX_HEADER_BYTES = 100 << 20
_NOT_CAUSAL = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")
_LOGIN = "log in on this machine with 'hf auth login'"


def is_path(source: str) -> bool:
    """Tell paths from names on the Hub, as specs do: a path begins with ``.``, ``/`` or ``~``."""
    return source.startswith((".", "/", "~"))


def find_folder(source: str, *, runs_dir: Path, parent: str = "", revision: str = "", download: bool = True) -> Path:
    """Return the folder that holds a model's or a tokenizer's files, downloading them when needed.

    Safe to call from many processes at once: downloads are locked per file.

    Args:
        source: A path, ``parent``, or a name on the Hub.
        runs_dir: Where runs are.
        parent: The run that is built on.
        revision: Branch, tag or commit on the Hub.
        download: Ask the Hub; else only what is on this machine is looked at.

    Raises:
        UserError: There is no such model, it is gated or private, or the run has none.
        EnvironmentProblem: The Hub cannot be reached and the model is not on this machine.
        OSError: The disk is full.
    """
    if source == PARENT:
        return _of_parent(runs_dir, parent)
    if is_path(source):
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"There is no folder {source}.", "Choose the folder of a model, or give its name on the Hub."
            )
        return folder
    return _of_hub(source, revision, download=download)


def _of_parent(runs_dir: Path, parent: str) -> Path:
    if not parent:
        raise UserError("No run is named to take the model from.", "Set 'parent' to the id of a run that made a model.")
    if not (runs_dir / parent).is_dir():
        raise UserError(f"There is no run {parent} here.", "Set 'parent' to the id of a run that made a model.")
    try:
        found = inherited_artifacts(runs_dir, parent).get(MODEL_KIND)
    except OSError as error:
        raise EnvironmentProblem(
            f"The log of run {parent} cannot be read: {error.strerror}.", "Check the disk."
        ) from error
    if found is None:
        hint = "Set 'parent' to the id of a run of train.language that succeeded (with adapters: that merged them)."
        raise UserError(f"Run {parent} left no whole model.", hint)
    return found


def _of_hub(name: str, revision: str, *, download: bool) -> Path:
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RevisionResolutionError,
    )

    def fetch() -> str:
        return snapshot_download(
            name, revision=revision or None, allow_patterns=list(_MODEL_FILES), local_files_only=not download
        )

    try:
        return Path(fetch())
    except HFValidationError as error:
        raise UserError(f"'{name}' is no name of a model on the Hub.", "It looks like owner/model.") from error
    except HfHubHTTPError as error:
        raise _refused(name, revision, error) from error
    except (LocalEntryNotFoundError, RevisionResolutionError, ConnectionError, HTTPError) as error:
        raise _deepest_refusal(name, revision, error) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise EnvironmentProblem(f"{name} cannot be stored on this machine: {error}.", "Check the disk.") from error


def _deepest_refusal(name: str, revision: str, error: BaseException) -> PilothouseError:
    """Return the Hub's own refusal where one is behind an error that says only that nothing was found."""
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            return _refused(name, revision, cause)
        cause = cause.__cause__ or cause.__context__
    return EnvironmentProblem(
        f"{name} is not on this machine, and the Hugging Face Hub cannot be reached.",
        "Connect and try again (HF_HUB_OFFLINE must not be set), or give the folder of a copy.",
    )


def _refused(name: str, revision: str, error: Exception) -> PilothouseError:
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    refusals: tuple[tuple[type[Exception], Callable[[], PilothouseError]], ...] = (
        (
            GatedRepoError,
            lambda: UserError(
                f"{name} is gated: its owner hands it out only to those who accepted its licence.",
                f"Accept the licence on the model's page on the Hub, then {_LOGIN}.",
            ),
        ),
        (
            RepositoryNotFoundError,
            lambda: UserError(
                f"There is no model {name} on the Hub that you may read.",
                f"Check the name; if it is private, {_LOGIN}.",
            ),
        ),
        (
            RevisionNotFoundError,
            lambda: UserError(f"{name} has no revision {revision}.", "Give a branch, tag or commit that it has."),
        ),
        (DisabledRepoError, lambda: UserError(f"{name} was disabled on the Hub.", "Choose another model.")),
    )
    for kind, say in refusals:
        if isinstance(error, kind):
            return say()
    status = cast("HfHubHTTPError", error).response.status_code
    if status in (401, 403):
        return UserError(f"The Hub does not let you read {name} ({status}).", f"Check your rights and {_LOGIN}.")
    return EnvironmentProblem(f"The Hub answered {status} when asked for {name}.", "Try again later.")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of ``config.json``.

    Raises:
        UserError: It is missing or no JSON object.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        hint = "Choose a folder in Hugging Face layout: config.json, *.safetensors, tokenizer.json."
        raise UserError(f"{folder} has no {CONFIG}.", hint) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Get the model's files again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object.", "Get the model's files again.")
    return cast("dict[str, Any]", content)


def check_weights(folder: Path, config: dict[str, Any]) -> None:
    """Refuse folders whose weights cannot be read safely.

    Raises:
        UserError: There are none, they are pickled, or the model needs code of its own.
    """
    if config.get("auto_map"):
        raise UserError(
            f"The model in {folder} needs Python code that comes with it, which is never run.",
            "Choose a model whose architecture is part of the transformers library.",
        )
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickled:
        raise UserError(
            f"{folder / pickled[0]} is a pickled file, which could run any code when it is read.",
            "Convert the weights to safetensors where you trust their source, and use that folder.",
        )
    raise UserError(f"{folder} has no weights (*.safetensors).", "Get the model's files again.")


def check_generates(folder: Path, config: dict[str, Any]) -> None:
    """Refuse models that were made for another task than foretelling the next token.

    Raises:
        UserError: The configuration names the architecture of such a model.
    """
    others = [name for name in config.get("architectures") or () if str(name).endswith(_NOT_CAUSAL)]
    if others:
        raise UserError(
            f"The model in {folder} is a {others[0]}, which does not continue text.",
            "Choose a causal language model (...ForCausalLM), or train this one with train.text-classifier.",
        )


def _header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: 8 bytes of length, then JSON of types and shapes."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes")
        content = json.loads(file.read(length))
    return cast("dict[str, Any]", content)


def count_parameters(folder: Path) -> int:
    """Return the number of weights in the safetensors files of a folder, from their headers alone.

    Raises:
        UserError: A file is damaged.
    """
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            for name, entry in _header(path).items():
                total += _elements(entry["shape"]) if name != "__metadata__" else 0
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise UserError(
                f"{path} is no whole safetensors file ({error}).", "Get the model's files again."
            ) from error
    return total


def _elements(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def token_count(folder: Path) -> int:
    """Return one more than the greatest id in ``tokenizer.json``; 0 when there is no such file to tell it.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return 0
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        added = [entry["id"] for entry in content.get("added_tokens", [])]
        return 1 + max([*ids, *added], default=-1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no tokenizer that can be read ({error}).", "Get the model's files again."
        ) from error
