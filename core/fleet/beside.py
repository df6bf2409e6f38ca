"""Puts the worker package beside an interpreter of the user's own, which is never changed.

The package, and those of its few dependencies that the interpreter lacks, lie in one folder of ours that is put on the
interpreter's path when a run is started. The dependencies are chosen here for the interpreter's version and C library,
so the host needs neither uv nor internet, and the interpreter may be inside of a container.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import Progress, RuntimeRecord, Watcher
from core.contracts.links import Link
from core.fleet.host_facts import HostFacts
from core.fleet.package_fetch import Platform, fetch_unpacked
from core.fleet.self_test_answer import import_name
from core.fleet.uv_tool import copy_watch
from core.fleet.worker_command import python_command
from core.fleet.worker_wheel import OLDEST_PYTHON, REQUIRED, build_worker_wheel, worker_version

_MARK = "pilothouse-interpreter:"

# Understood by every Python 3, so that one which is too old is told by its version.
_ASK = """
import importlib.util, json, platform, sys
names = sys.argv[1:]
missing = [name for name in names if importlib.util.find_spec(name) is None]
print("\\npilothouse-interpreter:" + json.dumps({"version": list(sys.version_info[:2]), "arch": platform.machine(),
    "libc": list(platform.libc_ver()), "missing": missing, "executable": sys.executable}))
"""
_UNPACK = """
import os, shutil, sys, zipfile
packed, target = sys.argv[1:]
partial = target + ".partial"
shutil.rmtree(partial, ignore_errors=True)
with zipfile.ZipFile(packed) as archive:
    archive.extractall(partial)
shutil.rmtree(target, ignore_errors=True)
os.rename(partial, target)
"""


class _Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    version: tuple[int, int]
    arch: str
    libc: tuple[str, str]
    missing: tuple[str, ...]
    executable: str

    def platform(self) -> Platform:
        parts = self.libc[1].split(".")
        glibc = (int(parts[0]), int(parts[1])) if self.libc[0] == "glibc" and len(parts) > 1 else None
        return Platform(arch=self.arch, glibc=glibc, python=self.version)


def put_beside(
    link: Link, facts: HostFacts, choice: RuntimeRecord, watcher: Watcher, *, cache: Path
) -> tuple[RuntimeRecord, str]:
    """Put the worker package beside the interpreter of ``choice``; return its record and the folder.

    Raises:
        UserError: There is no such interpreter, or it is too old.
        EnvironmentProblem: A dependency has no build for it, or the link was lost.
        Cancelled: The user cancelled.
    """
    watcher.report(Progress(stage="Looking at the interpreter", done=0.1))
    bare = msgspec.structs.replace(choice, kind="interpreter", python=_absolute(choice.python, facts), worker_dir="")
    found = _ask(link, bare)
    lacking = tuple(name for name in REQUIRED if import_name(name) in found.missing)
    # The home may be shared by several hosts: each has a folder of its own, to be cleared away when that one renews it.
    told = (facts.hostname, bare.python, bare.wrapper, found.version, lacking)
    digest = hashlib.sha256(repr(told).encode()).hexdigest()[:8]
    folder = f"{facts.work_dir}/runtimes/{worker_version()}-beside-{digest}"
    if link.stat(folder) is None:
        _send(link, bare, _Bundle(found, lacking, cache), folder, watcher)
    return msgspec.structs.replace(bare, worker_dir=folder, worker_version=worker_version(), checked=None), folder


def _absolute(python: str, facts: HostFacts) -> str:
    if python.startswith("~/"):
        return facts.home + python[1:]
    if not python:
        raise UserError("No interpreter was named.", "Name one, such as: --python /opt/conda/envs/train/bin/python")
    return python


def _ask(link: Link, runtime: RuntimeRecord) -> _Interpreter:
    names = [import_name(name) for name in REQUIRED]
    done = link.run(python_command(runtime, ["-c", _ASK, *names]), cwd="/", timeout_s=120.0)
    line = next((line for line in done.stdout.split(b"\n") if line.startswith(_MARK.encode())), None)
    if line is None:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise UserError(
            f"The interpreter {runtime.python!r} does not start on {link.name}: "
            f"{said[-1][:300] if said else f'exit status {done.code}'}.",
            "Name one that is there, with the prelude or the container that it needs.",
        )
    found = msgspec.json.decode(line.removeprefix(_MARK.encode()), type=_Interpreter)
    if found.version < OLDEST_PYTHON:
        raise UserError(
            f"{runtime.python} is Python {found.version[0]}.{found.version[1]}; runs need 3.11 or newer.",
            "Name a newer one, or let Pilothouse make an environment (--managed).",
        )
    return found


class _Bundle:
    """The worker package and what an interpreter lacks, as one archive."""

    def __init__(self, interpreter: _Interpreter, lacking: tuple[str, ...], cache: Path) -> None:
        self._interpreter = interpreter
        self._lacking = lacking
        self._cache = cache

    def write(self, watcher: Watcher) -> Path:
        """Return the archive, made now; the caller removes it."""
        wheel = build_worker_wheel(self._cache / "worker")
        target = wheel.with_name(f"{wheel.stem}.{os.getpid()}-{threading.get_ident()}.zip")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with zipfile.ZipFile(wheel) as packed:
                for name in packed.namelist():
                    archive.writestr(name, packed.read(name))
            for path, name in self._vendored(watcher):
                archive.write(path, name)
        return target

    def _vendored(self, watcher: Watcher) -> list[tuple[Path, str]]:
        if not self._lacking:
            return []
        platform = self._interpreter.platform()
        digest = hashlib.sha256(repr(self._lacking).encode()).hexdigest()[:8]
        folder = self._cache / "vendored" / f"{platform.uv_name}-{platform.python_name}-{digest}"
        if not folder.is_dir():
            fetch_unpacked(self._lacking, platform, folder, watcher)
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return [(path, path.relative_to(folder).as_posix()) for path in files if path.parts[len(folder.parts)] != "bin"]


def _send(link: Link, runtime: RuntimeRecord, bundle: _Bundle, folder: str, watcher: Watcher) -> None:
    watcher.report(Progress(stage="Packing the worker package", done=0.2))
    archive = bundle.write(watcher)
    there = f"{folder}.zip"
    try:
        size = archive.stat().st_size
        watcher.report(Progress(stage="Sending the worker package", done=0.5, line=f"{size / 1e6:.1f} MB"))
        link.makedirs(folder.rpartition("/")[0])
        link.put(str(archive), there, copy_watch(watcher, "Sending the worker package", size))
        done = link.run(python_command(runtime, ["-c", _UNPACK, there, folder]), cwd="/", timeout_s=300.0)
    finally:
        archive.unlink(missing_ok=True)
        if link.is_alive():
            link.remove(there)
    if done.code != 0:
        if link.is_alive():
            link.remove(f"{folder}.partial")
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise EnvironmentProblem(
            f"The worker package cannot be unpacked on {link.name}: {said[-1][:300] if said else 'no reason given'}.",
            "Look at the disk there; for a container, its image must see the work folder.",
        )
