"""A machine with NVIDIA GPUs that are not there: our stand-in library under the real nvidia-ml-py, in a child process.

``machine.run(script)`` starts Python with the library in its path and returns what the script gave to ``emit``. The
script may call ``change("gpu.0.lost 1")`` to alter the machine while it is being read (see ``nvml_standin.c``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("nvml_standin.c")
REPOSITORY = SOURCE.parents[3]

_PRELUDE = """
import json, os, pathlib, sys, time
import msgspec

_file = pathlib.Path(os.environ["NVML_STANDIN"])

def change(*lines):
    # The first line with a key counts, so that later changes go in front.
    new = _file.with_suffix(".new")
    new.write_text("\\n".join(lines) + "\\n" + _file.read_text())
    new.replace(_file)

def emit(value):
    sys.stdout.write(json.dumps(msgspec.to_builtins(value)))
"""


def build(folder: Path, *flags: str) -> Path:
    """Compile the stand-in into ``folder`` and return it; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the NVML stand-in needs Linux and a C compiler")
    folder.mkdir(parents=True)
    library = folder / "libnvidia-ml.so.1"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        *flags,
        "-o",
        str(library),
        str(SOURCE),
    ]
    subprocess.run(command, check=True)
    return folder


class NvidiaMachine:
    """A machine described by lines such as ``gpus 2``."""

    def __init__(self, library_folder: Path | None, description: Path) -> None:
        self._library_folder = library_folder
        self._description = description

    def run(self, description: str, script: str) -> Any:
        """Run the script on the machine and return what it emitted."""
        lines = [line.strip() for line in description.splitlines() if line.strip()]
        self._description.write_text("\n".join(lines) + "\n")
        environment = os.environ | {"NVML_STANDIN": str(self._description), "PYTHONPATH": str(REPOSITORY)}
        environment["LD_LIBRARY_PATH"] = str(self._library_folder or "")
        command = [sys.executable, "-W", "error", "-c", _PRELUDE + script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
