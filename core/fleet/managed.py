"""Fills the folder of a ``managed`` runtime with uv: a virtual environment with the worker package and what was asked."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from core.contracts.errors import EnvironmentProblem
from core.contracts.hosts import Progress, RuntimeRecord, Watcher
from core.contracts.links import Link
from core.fleet.guarded import Guarded, run_guarded
from core.fleet.host_facts import HostFacts
from core.fleet.package_fetch import Platform, fetch_wheels, problem_of, torch_build_for
from core.fleet.uv_tool import copy_watch, uv_on_host
from core.fleet.worker_wheel import EXTRAS, OLDEST_PYTHON, REQUIRED, build_worker_wheel, worker_version

COMPLETE = "pilothouse-complete"
"""File in the folder of an environment that is whole."""

_DOWNLOADED_PYTHON = "3.12"
_NEEDED_BYTES = 600 << 20
_NEEDED_TORCH_BYTES = 9 << 30
_STALE_MINUTES = 360
# Half-made folders that a crash left. Their age protects those that another window is filling. What was put beside an
# interpreter is renamed once it is whole, and needs no mark.
_SWEEP = (
    'for dir in "$1"/runtimes/* "$1"/runtimes/.wheels-*; do case "$dir" in *-beside-????????) continue ;; esac; '
    '[ -d "$dir" ] && [ ! -e "$dir/$2" ] && [ -n "$(find "$dir" -maxdepth 0 -mmin +"$3")" ] && rm -rf -- "$dir"; '
    "done; :"
)


def make_managed(
    link: Link, facts: HostFacts, choice: RuntimeRecord, watcher: Watcher, *, cache: Path, from_here: bool | None
) -> tuple[RuntimeRecord, str]:
    """Make an environment in a new folder; return its record and the folder.

    Raises:
        UserError: The packages do not exist for this host.
        EnvironmentProblem: No suitable Python, no space, no index, or the link was lost; nothing is left.
        Cancelled: Nothing is left either.
    """
    is_sent = not facts.index_answers if from_here is None else from_here
    base = _base_python(link, facts, choice, is_sent=is_sent)
    _check_space(facts, choice)
    link.run(["/bin/sh", "-c", _SWEEP, "sh", facts.work_dir, COMPLETE, str(_STALE_MINUTES)])
    maker = _Maker(link, facts, choice, watcher, cache)
    return maker.make(base, is_sent=is_sent), maker.folder


def _base_python(link: Link, facts: HostFacts, choice: RuntimeRecord, *, is_sent: bool) -> str:
    """Return the interpreter to build on: the one that was named, that of the environment until now, or one found."""
    if choice.python.startswith(f"{facts.work_dir}/runtimes/"):
        before = _built_on(link, choice.python)
        if before:
            return before
    elif choice.python:
        return choice.python
    found = facts.newest_python(OLDEST_PYTHON)
    if found is not None:
        return found.path
    if not is_sent:
        return _DOWNLOADED_PYTHON
    there = ", ".join(".".join(map(str, python.version)) for python in facts.pythons) or "none"
    raise EnvironmentProblem(
        f"The host has no Python 3.11 or newer (found: {there}) and no internet to get one from.",
        "Install one there, or name one that is elsewhere on it: pilothouse hosts install NAME --managed --python PATH",
    )


def _built_on(link: Link, python: str) -> str:
    """Return the interpreter that one of our environments was built on; empty when that cannot be told any more."""
    try:
        text = link.read(f"{python.removesuffix('/bin/python')}/pyvenv.cfg").decode(errors="replace")
    except FileNotFoundError:
        return ""
    said = dict(re.findall(r"^(\w+) *= *(.*?)\s*$", text, re.MULTILINE))
    version = ".".join(said.get("version_info", "3").split(".")[:2])
    candidate = f"{said.get('home', '')}/python{version}"
    return candidate if link.stat(candidate) is not None else ""


def _check_space(facts: HostFacts, choice: RuntimeRecord) -> None:
    needed = _NEEDED_TORCH_BYTES if choice.extras else _NEEDED_BYTES
    if facts.work_disk is not None and facts.work_disk.free_bytes < needed:
        raise EnvironmentProblem(
            f"{facts.work_disk.mount} on the host has {facts.work_disk.free_bytes / 1e9:.1f} GB free; "
            f"the environment needs about {needed / 1e9:.1f} GB.",
            "Free some space there, or choose a work folder on a larger disk.",
        )


class _Maker:
    """One environment being made."""

    def __init__(self, link: Link, facts: HostFacts, choice: RuntimeRecord, watcher: Watcher, cache: Path) -> None:
        self._link = link
        self._facts = facts
        self._choice = choice
        self._watcher = watcher
        self._cache = cache
        tag = secrets.token_hex(4)
        self.folder = f"{facts.work_dir}/runtimes/{worker_version()}-{tag}"
        self._wheels = f"{facts.work_dir}/runtimes/.wheels-{tag}"

    def make(self, base: str, *, is_sent: bool) -> RuntimeRecord:
        link, watcher = self._link, self._watcher
        python = f"{self.folder}/bin/python"
        try:
            uv = uv_on_host(link, self._facts, self._cache, watcher)
            link.makedirs(self._wheels)
            self._run([uv, "venv", "--no-project", "--python", base, self.folder], "Making the environment", 0.2)
            wheel = build_worker_wheel(self._cache / "worker")
            self._put(wheel, "Sending the worker package")
            options: list[str] = []
            if is_sent:
                self._send_wheels(python)
                options = ["--no-index", "--find-links", self._wheels]
            elif self._choice.extras:
                options = ["--torch-backend", self._choice.torch_backend]
            install = [uv, "pip", "install", "--python", python, *options, "--", *self._requirements(wheel.name)]
            self._run(install, "Installing packages", 0.5)
            link.write(f"{self.folder}/{COMPLETE}", f"{worker_version()}\n".encode())
        except BaseException:
            if link.is_alive():
                link.remove(self.folder)
            raise
        finally:
            if link.is_alive():
                link.remove(self._wheels)
        return msgspec.structs.replace(
            self._choice, python=python, worker_dir="", worker_version=worker_version(), checked=None
        )

    def _requirements(self, wheel: str) -> list[str]:
        groups = [extra for extra in self._choice.extras if extra in EXTRAS]
        names = f"[{','.join(groups)}]" if groups else ""
        others = [extra for extra in self._choice.extras if extra not in EXTRAS]
        return [f"pilothouse-worker{names} @ file://{quote(f'{self._wheels}/{wheel}')}", *others]

    def _send_wheels(self, python: str) -> None:
        """Fetch here what the host needs, and send it."""
        asked = self._link.run([python, "-I", "-c", "import sys; print(*sys.version_info[:2])"])
        major, minor = (int(part) for part in asked.stdout.split())
        platform = Platform(arch=self._facts.arch, glibc=self._facts.glibc, python=(major, minor))
        extras = self._choice.extras
        wanted = {*REQUIRED}.union(*(EXTRAS.get(extra, (extra,)) for extra in extras))
        backend = self._choice.torch_backend
        build = (torch_build_for(self._facts) if backend == "auto" else backend) if extras else ""
        folder = self._cache / "wheels" / f"{platform.uv_name}-{platform.python_name}-{build or 'light'}"
        fetch_wheels(sorted(wanted), platform, build, folder, self._watcher)
        pinned = _pinned_files(folder)
        for number, wheel in enumerate(pinned):
            self._put(wheel, f"Sending packages ({number + 1} of {len(pinned)})")

    def _put(self, wheel: Path, stage: str) -> None:
        size = wheel.stat().st_size
        self._watcher.report(Progress(stage=stage, line=f"{wheel.name}, {size / 1e6:.1f} MB"))
        self._link.put(str(wheel), f"{self._wheels}/{wheel.name}", copy_watch(self._watcher, stage, size))

    def _run(self, argv: Sequence[str], stage: str, done: float) -> None:
        facts = self._facts
        env = {
            "UV_CACHE_DIR": f"{facts.work_dir}/cache/uv",
            "UV_PYTHON_INSTALL_DIR": f"{facts.work_dir}/python",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
        }
        if facts.index_url and not facts.index_is_uv:
            # uv does not read pip's configuration; a company's mirror is usually named only there.
            env["UV_DEFAULT_INDEX"] = facts.index_url
        command = Guarded(argv=argv, stage=stage, done=done, undo=self.folder, env=env)
        code, lines = run_guarded(self._link, command, self._watcher)
        if code:
            raise problem_of("\n".join(lines), stage)


def _pinned_files(folder: Path) -> list[Path]:
    """Return the wheels of exactly the pinned versions; the folder may hold older ones too."""
    pinned: set[tuple[str, str]] = set()
    for line in (folder / "pinned.txt").read_text(encoding="utf-8").splitlines():
        name, found, version = line.split(";")[0].strip().partition("==")
        if found and not line.startswith(("#", "-")):
            pinned.add((_canonical(name), version.strip()))
    wheels = sorted(folder.glob("*.whl"), key=lambda wheel: wheel.stat().st_size)
    return [wheel for wheel in wheels if (_canonical(wheel.name.split("-")[0]), wheel.name.split("-")[1]) in pinned]


def _canonical(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
