"""A package index on disk, made of what is installed here: the same packages, without any network.

``make_index`` packs installed distributions back into wheels and lays them out as pip and uv want them (PEP 503), to be
used as ``file://`` URL. Only for an interpreter of the version that runs the tests.
"""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from pathlib import Path

_PROJECT_PAGE = "<!DOCTYPE html><html><body>{}</body></html>\n"


def base_python() -> Path:
    """Return the interpreter that the tests' environment is built on."""
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _tag_of(found: metadata.Distribution) -> str:
    lines = (found.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
    # A wheel's several tags differ in the platform only; the name takes them joined by dots.
    interpreter, abi, _ = tags[0].split("-")
    return f"{interpreter}-{abi}-{'.'.join(tag.split('-')[2] for tag in tags if tag.startswith(f'{interpreter}-'))}"


def pack(name: str, folder: Path) -> Path:
    """Pack an installed distribution into a wheel in ``folder``."""
    found = metadata.distribution(name)
    stem = f"{found.metadata['Name'].replace('-', '_')}-{found.version}"
    wheel = folder / f"{stem}-{_tag_of(found)}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as packed:
        for entry in found.files or ():
            place = Path(str(entry.locate()))
            if not str(entry).startswith("..") and entry.suffix != ".pyc" and place.is_file():
                packed.write(place, str(entry))
    return wheel


def make_index(folder: Path, names: tuple[str, ...]) -> str:
    """Lay out an index of installed distributions below ``folder``; return its URL."""
    for name in (*names, "pip"):
        project = folder / "simple" / name.lower().replace("_", "-")
        project.mkdir(parents=True, exist_ok=True)
        wheel = pack(name, project)
        (project / "index.html").write_text(_PROJECT_PAGE.format(f'<a href="{wheel.name}">{wheel.name}</a>'))
    return f"file://{folder}/simple"
