"""Fetches packages here for a host: chosen for that host's Python, processor and C library, never for this machine's.

uv and pip do it, as programs, with the index that the user configured for them. ``core.fleet.uv_tool`` brings uv itself
to hosts.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import Progress, Watcher
from core.fleet.host_facts import HostFacts

_UV_GLIBC = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
"""Second numbers of the glibc versions that ``uv --python-platform`` knows."""

_FETCH_LIMIT_S = 3600.0
_TORCH_INDEX = "https://download.pytorch.org/whl"

# Newest driver first, as NVIDIA and PyTorch publish them.
_TORCH_BUILDS = (
    (13, 0, "cu130"),
    (12, 9, "cu129"),
    (12, 8, "cu128"),
    (12, 6, "cu126"),
    (12, 4, "cu124"),
    (11, 8, "cu118"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What packages must be built for.

    Attributes:
        arch: As ``uname -m`` has it.
        glibc: Version of glibc; None for musl.
        python: Major and minor version of the interpreter.
    """

    arch: str
    glibc: tuple[int, int] | None
    python: tuple[int, int]

    @property
    def uv_name(self) -> str:
        """As ``uv --python-platform`` wants it."""
        arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(self.arch, self.arch)
        if self.glibc is None:
            return f"{arch}-unknown-linux-musl"
        if arch not in {"x86_64", "aarch64"}:
            return f"{arch}-unknown-linux-gnu"
        fitting = [minor for minor in _UV_GLIBC if (2, minor) <= self.glibc]
        return f"{arch}-manylinux_2_{max(fitting, default=17)}"

    @property
    def pip_tags(self) -> tuple[str, ...]:
        """Every platform tag that fits, for ``pip download``, which takes each by its word."""
        if self.glibc is None:
            return tuple(f"musllinux_1_{minor}_{self.arch}" for minor in range(2, -1, -1))
        newer = [f"manylinux_2_{minor}_{self.arch}" for minor in range(self.glibc[1], 4, -1)]
        return (*newer, *(f"{name}_{self.arch}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")))

    @property
    def python_name(self) -> str:
        """Such as ``3.12``."""
        return f"{self.python[0]}.{self.python[1]}"


def torch_build_for(facts: HostFacts) -> str:
    """Return the build of torch for what a host has, as ``uv --torch-backend=auto`` would find it there."""
    if facts.gpus and facts.driver_cuda is not None:
        fitting = (name for major, minor, name in _TORCH_BUILDS if (major, minor) <= facts.driver_cuda)
        return next(fitting, "cpu")
    return "cpu"


def uv_here() -> str:
    """Return the path of our own uv; EnvironmentProblem when the package is damaged."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise EnvironmentProblem(
            "The program uv is missing from Pilothouse's environment.", "Run: make repair"
        ) from error


def _has_pip() -> bool:
    """Tell whether pip is installed, by its record: to look for its module would set off setuptools' import hook."""
    try:
        importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def fetch_unpacked(requirements: Sequence[str], platform: Platform, folder: Path, watcher: Watcher) -> None:
    """Fetch packages for a host and unpack them into a folder here, replaced as a whole.

    Raises:
        EnvironmentProblem: A package has no build for the host, or the index cannot be reached.
        Cancelled: The user cancelled.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    command = [uv_here(), "pip", "install", "--quiet", "--no-progress", "--target", str(partial)]
    command += ["--python", sys.executable, "--python-platform", platform.uv_name]
    command += ["--python-version", platform.python_name, "--only-binary", ":all:", "--", *requirements]
    try:
        _run_here(command, "Fetching packages for the host", watcher)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fetch_wheels(
    requirements: Sequence[str], platform: Platform, torch_build: str, folder: Path, watcher: Watcher
) -> None:
    """Fetch the wheels of packages, and of all that they need, for a host into a folder here.

    uv resolves them as it would on the host; pip, which can download without installing, brings exactly those.

    Args:
        requirements: Such as ``msgspec`` or ``torch>=2.6``.
        platform: What they must be built for.
        torch_build: ``cpu``, ``cu128``, ...: which builds of torch; empty when torch is not wanted.
        folder: Where they go; what lies there already is kept and used.
        watcher: Sees the progress; may cancel.

    Raises:
        UserError: A requirement cannot be met.
        EnvironmentProblem: The index cannot be reached, or our own environment has no pip.
        Cancelled: The user cancelled.
    """
    if not _has_pip():
        raise EnvironmentProblem(
            "Pilothouse's own environment has no pip to download packages with.", "Run: make repair"
        )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "wanted.in"
    wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    pinned = folder / "pinned.txt"
    command = [uv_here(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-progress", str(wanted)]
    command += ["--python", sys.executable, "--python-platform", platform.uv_name, "-o", str(pinned), "--upgrade"]
    command += ["--python-version", platform.python_name, "--only-binary", ":all:"]
    torch_options = ["--torch-backend", torch_build] if torch_build else []
    _run_here([*command, *torch_options], "Choosing packages for the host", watcher)
    download = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--no-input"]
    download += ["--progress-bar", "off", "-d", str(folder), "-r", str(pinned), "--only-binary", ":all:"]
    download += ["--implementation", "cp", "--python-version", platform.python_name]
    for tag in platform.pip_tags:
        download += ["--platform", tag]
    if torch_build:
        download += ["--extra-index-url", f"{_TORCH_INDEX}/{torch_build}"]
    _run_here(download, "Downloading packages for the host", watcher)


def _environment() -> dict[str, str]:
    """Return the environment for uv here: the index that pip is configured with is uv's too, unless uv has its own."""
    own = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")
    config = [Path.home() / ".config" / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]
    if any(os.environ.get(name) for name in own) or any(file.is_file() for file in config):
        return dict(os.environ)
    index = os.environ.get("PIP_INDEX_URL", "")
    if not index and _has_pip():
        asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        index = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60).stdout.strip()
    return {**os.environ, "UV_DEFAULT_INDEX": index} if index else dict(os.environ)


def _run_here(command: Sequence[str], stage: str, watcher: Watcher) -> None:
    """Run a program here, line by line, ending it on Cancel; what went wrong becomes a sentence."""
    watcher.report(Progress(stage=stage))
    said: list[str] = []
    deadline = time.monotonic() + _FETCH_LIMIT_S
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
    ) as child:
        try:
            for line in _lines_of(child, watcher, deadline):
                said.append(line)
                watcher.report(Progress(stage=stage, line=line))
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise problem_of("\n".join(said), stage)


def _lines_of(child: subprocess.Popen[bytes], watcher: Watcher, deadline: float) -> Iterator[str]:
    """Yield what a program prints, as it prints it."""
    if child.stdout is None:
        return
    rest = b""
    while True:
        if watcher.is_cancelled():
            raise Cancelled
        if time.monotonic() > deadline:
            raise EnvironmentProblem("Fetching packages took longer than an hour.", "Look at this machine's network.")
        if not select.select([child.stdout], [], [], 0.2)[0]:
            continue
        data = os.read(child.stdout.fileno(), 1 << 16)
        *whole, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
        if not data:
            yield from ([rest.decode(errors="replace")] if rest else [])
            return


_NO_INDEX = re.compile(
    r"dns error|error sending request|Failed to fetch|tcp connect|timed out|NewConnectionError|Name or service not known|"
    r"Network is unreachable|Could not connect",
    re.IGNORECASE,
)
_NO_BUILD = re.compile(
    r"No solution found|no matching distribution|no versions? of|has no wheels|Because .* not found", re.IGNORECASE
)
_NO_SPACE = re.compile(r"No space left on device|os error 28|Disk quota exceeded|os error 122", re.IGNORECASE)


def problem_of(output: str, stage: str) -> EnvironmentProblem | UserError:
    """Return what uv or pip failed with, as a sentence and its remedy."""
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no reason given")
    if _NO_SPACE.search(output):
        return EnvironmentProblem(f"{stage}: the disk is full.", "Free some space there, then try again.")
    if _NO_INDEX.search(output):
        return EnvironmentProblem(
            f"{stage}: the package index cannot be reached.",
            "Check network and proxy; for a host without internet let the packages be sent from here.",
        )
    if _NO_BUILD.search(output):
        reason = re.sub(r"\s+", " ", output).strip()[-600:]
        return UserError(f"{stage}: the packages do not fit together or do not exist for this host: {reason}")
    return EnvironmentProblem(f"{stage} failed: {last[:400]}", "The log shows all that was said.")
