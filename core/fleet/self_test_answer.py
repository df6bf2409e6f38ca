"""What a host's Python environment answers when it is tried out.

The record between ``core.fleet.self_test``, which runs there and imports torch, and those who ask here, who must not.
"""

from __future__ import annotations

import msgspec

MARK = "pilothouse-self-test:"
"""Begins the line with the answer, whatever libraries print before it."""
_IMPORT_NAMES = {"tomli-w": "tomli_w", "nvidia-ml-py": "pynvml", "scikit-learn": "sklearn"}


class TorchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What torch says.

    Attributes:
        cuda: CUDA (or ROCm) version that it was built for; empty for a CPU build.
        gpus: Names of the GPUs that it sees.
        collectives: Outcome of a two-process all-reduce by library (``gloo``, ``nccl``): empty when it worked, else why
            not.
    """

    version: str
    cuda: str
    gpus: tuple[str, ...]
    collectives: dict[str, str]


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """The answer.

    Attributes:
        missing: Packages that the worker needs and that cannot be imported, with the reason.
        packages: Versions of what kinds of run use, by distribution.
        kinds: Number of kinds of run that can be loaded; ``broken_kinds`` the modules that cannot.
        torch: None where torch is not installed; ``torch_problem`` when it is, but cannot be imported.
    """

    python: str
    worker_version: str
    missing: dict[str, str]
    packages: dict[str, str]
    kinds: int
    broken_kinds: tuple[str, ...]
    torch: TorchFacts | None = None
    torch_problem: str = ""


def import_name(distribution: str) -> str:
    """Return the name to import a distribution by."""
    return _IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))
