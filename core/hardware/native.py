"""Builds and runs our small C++ probe with the user's compiler, once per machine and source, in the user's cache.

Without a compiler, without the source, or where the program fails, ``NativeProbe.find`` gives a reason instead of a
probe and callers use their Python twin. The key of the cache holds processor, compiler and source, since the program is
built for exactly this processor.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from core.hardware.cpu import cpu_info

SOURCE = Path(__file__).parents[2] / "native" / "peak.cpp"
COMPILERS = ("g++", "clang++", "c++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-pthread")
BUILD_LIMIT_S = 60.0
RUN_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class NativeProbe:
    """The built program, or why there is none: exactly one of the two is set."""

    program: Path | None
    reason: str = ""

    @classmethod
    def find(cls, cache: Path | None = None, source: Path = SOURCE) -> NativeProbe:
        """Return the probe, building it on the first call (some seconds). Never raises. Thread: any.

        Args:
            cache: Folder for built programs; the user's cache by default.
            source: The C++ file.
        """
        compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
        if not source.is_file():
            return cls(None, "The C++ probe is not part of this installation.")
        if compiler is None:
            return cls(None, f"No C++ compiler was found ({', '.join(COMPILERS)}).")
        folder = cache or user_cache_path("pilothouse") / "native"
        program = folder / f"peak-{_key(compiler, source)}"
        try:
            return cls(program) if program.exists() else _build(compiler, source, program)
        except (OSError, subprocess.SubprocessError) as error:
            return cls(None, f"The C++ probe could not be built: {error}.")

    def measure(self, kernel: str, threads: int, size: int) -> dict[str, Any] | None:
        """Run one kernel (``fma`` with iterations, ``triad`` with elements) and return its line, or None if it failed."""
        if self.program is None:
            return None
        command = [str(self.program), kernel, str(threads), str(size)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=True)
            return json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, json.JSONDecodeError):
            return None


def _key(compiler: str, source: Path) -> str:
    processor = cpu_info(None)
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=BUILD_LIMIT_S, check=False).stdout
    parts = (source.read_bytes(), version, f"{FLAGS}{platform.machine()}{processor.model}{processor.features}".encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _build(compiler: str, source: Path, program: Path) -> NativeProbe:
    """Compile into a temporary name first, so that two builds at once cannot leave half a program."""
    program.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=program.parent, prefix=".peak-")
    os.close(descriptor)
    try:
        command = [compiler, *FLAGS, "-o", temporary, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)
        if done.returncode != 0:
            first = next(iter(done.stderr.strip().splitlines()), f"code {done.returncode}")
            return NativeProbe(None, f"The C++ probe could not be compiled: {first}")
        Path(temporary).chmod(0o755)
        Path(temporary).replace(program)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return NativeProbe(program)
