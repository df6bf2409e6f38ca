"""What a run will ask of each of its hosts, told from its spec alone, before anything is connected. Starts nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from core.contracts.specs import RunSpec
from core.plugins.fields import spec_fields
from core.plugins.registry import registry

_COUNTED_FILES = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What a run asks of a host.

    Attributes:
        paths: Files and folders, by field, that must be readable there at the same place: neither copied nor relative.
        ranks: Processes on each node.
        devices: ``launch.devices``.
        waits: It waits for devices that are not free.
        checkpoint_bytes: Room for its checkpoints; None when that cannot be told.
        copied_bytes: Size of what is copied to the host.
        is_training: It needs torch.
    """

    paths: tuple[tuple[str, str], ...]
    ranks: int
    devices: str
    waits: bool
    checkpoint_bytes: int | None
    copied_bytes: int
    is_training: bool


def demands_of(spec: RunSpec) -> Demands:
    """Return what a spec asks; reads the sizes of what will be copied."""
    kind = registry().get(str(spec.__struct_config__.tag))
    launch = spec.launch
    copied = [Path(path).expanduser().absolute() for path in launch.copy_data]
    code = kind.code_folder(spec)
    if code and launch.copy_code == "copy":
        copied.append(Path(code))
    return Demands(
        paths=tuple((name, path) for name, path in _paths(spec) if not _is_below(path, copied)),
        ranks=kind.ranks(spec),
        devices=launch.devices,
        waits=launch.queue,
        checkpoint_bytes=kind.checkpoint_bytes(spec),
        copied_bytes=sum(_size_of(path, launch.exclude) for path in copied),
        is_training=kind.group == "train",
    )


def _paths(spec: RunSpec) -> list[tuple[str, str]]:
    """Return the paths that a spec names, absolute or below the user's home, by field."""
    tree = msgspec.to_builtins(spec)
    found: list[tuple[str, str]] = []
    for field in spec_fields(type(spec)):
        value: Any = tree
        for name in field.path:
            value = value[name]
        if field.path_kind and isinstance(value, str) and (value.startswith("~/") or Path(value).is_absolute()):
            found.append((field.dotted, value))
    return found


def _is_below(path: str, folders: list[Path]) -> bool:
    place = Path(path).expanduser()
    return any(place == folder or folder in place.parents for folder in folders)


def _size_of(path: Path, excluded: tuple[str, ...]) -> int:
    """Return roughly how large a file or a folder is; what cannot be read counts nothing."""

    def is_kept(name: str) -> bool:
        return not any(fnmatch(name, pattern) for pattern in excluded)

    if path.is_file():
        return path.stat().st_size
    total = seen = 0
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if is_kept(name)]
        for name in filter(is_kept, files):
            place = Path(folder, name)
            total += place.lstat().st_size if place.exists() else 0
            seen += 1
        if seen > _COUNTED_FILES:
            break
    return total
