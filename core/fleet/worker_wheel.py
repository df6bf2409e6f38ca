"""The worker package: what a host needs of us to carry out runs, as one small wheel made here.

Holds ``core``, ``native`` and the texts of ``resources`` exactly as they are installed here, so the version on a host
is the version here: the version number ends in a hash of the content. Made with the standard library only (an installed
program has no build tools), byte for byte the same each time, and kept in the home folder. It holds no dependencies;
``Requires-Dist`` names the few packages that the supervisor and the agent import, and extras name what kinds of run
need.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

import core

DISTRIBUTION = "pilothouse-worker"
OLDEST_PYTHON = (3, 11)

REQUIRED = ("msgspec", "psutil", "platformdirs", "tomli-w", "nvidia-ml-py", "numpy")
"""Packages without which the supervisor, the agent and light kinds of run do not start."""

EXTRAS: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "train": (
        *("torch", "torchvision", "accelerate", "scikit-learn", "scipy", "tensorboard", "onnx", "onnxscript"),
        *("transformers", "tokenizers", "safetensors", "peft", "timm", "bitsandbytes", "torchao"),
        *("datasets", "torchdata", "pyarrow", "fsspec", "s3fs", "jinja2", "zstandard"),
    ),
    "infer": ("onnx", "onnxruntime", "openvino", "threadpoolctl", "scikit-learn"),
    "compress": ("onnx", "onnxruntime", "openvino", "nncf", "torchao", "torch", "torchvision", "scikit-learn"),
}
"""Packages that kinds of run need beyond that, by group."""

_PACKAGES = ("core", "native", "resources")
_LEFT_OUT = frozenset({"__pycache__", "fonts", "icons", "themes"})
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PURPOSE = "What a host needs to carry out runs of Pilothouse"


def _sources() -> dict[str, Path]:
    """Return every file that goes in, by its name in the wheel, sorted."""
    root = Path(core.__path__[0]).resolve().parent
    files: dict[str, Path] = {}
    for package in _PACKAGES:
        for folder, names, found in os.walk(root / package):
            names[:] = [name for name in names if name not in _LEFT_OUT]
            for name in found:
                path = Path(folder, name)
                if path.suffix not in {".pyc", ".tmp"}:
                    files[path.relative_to(root).as_posix()] = path
    return dict(sorted(files.items()))


@cache
def worker_version() -> str:
    """Return the version of the worker package in this process.

    On a host, that of the installed package; here, the one that ``build_worker_wheel`` makes: equal means the same
    code. Reads all source files once (about 20 ms).
    """
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pass
    digest = hashlib.sha256()
    for name, path in _sources().items():
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    digest.update(_metadata("").encode())
    # The letter keeps a hash of digits only from being read, and shortened, as a number.
    return f"{metadata.version('pilothouse')}+h{digest.hexdigest()[:12]}"


def wheel_name() -> str:
    """Return the file name of the worker package's wheel."""
    return f"{DISTRIBUTION.replace('-', '_')}-{worker_version()}-py3-none-any.whl"


def build_worker_wheel(folder: Path) -> Path:
    """Return the wheel in ``folder``, made now unless it is there.

    Args:
        folder: Where wheels are kept; made when missing.

    Raises:
        OSError: It cannot be written.
    """
    wheel = folder / wheel_name()
    if wheel.is_file():
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: two windows may make it at once.
    partial = wheel.with_name(f"{wheel.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        _write(partial)
        partial.replace(wheel)
    finally:
        partial.unlink(missing_ok=True)
    return wheel


def _write(target: Path) -> None:
    info = f"{DISTRIBUTION.replace('-', '_')}-{worker_version()}.dist-info"
    contents = {name: path.read_bytes() for name, path in _sources().items()}
    contents[f"{info}/METADATA"] = _metadata(worker_version()).encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: pilothouse\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    lines = [f"{name},sha256={_record_hash(data)},{len(data)}" for name, data in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            packed.writestr(entry, data)


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _metadata(version: str) -> str:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION}",
        f"Version: {version}",
        f"Summary: {_PURPOSE}",
        f"Requires-Python: >={OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}",
        *(f"Requires-Dist: {name}" for name in REQUIRED),
    ]
    for extra, names in EXTRAS.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {name}; extra == "{extra}"' for name in names]
    return "\n".join([*lines, ""])
