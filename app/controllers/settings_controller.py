"""What the Settings page does: change settings at once, and gather diagnostics without secrets.

Diagnostics are made off the UI thread. What looks like a secret (by its name, or as a long token) is replaced, and the
user's home folder and name are not told.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from getpass import getuser
from pathlib import Path

from PySide6.QtCore import QObject, Signal, qVersion

from app.controllers.notices import notify
from app.controllers.ops import Op
from app.controllers.services import Services
from app.viewmodels.wording import size_text
from core.contracts.ids import RunId
from core.contracts.notices import Severity
from core.contracts.settings import Settings, ThemeMode

_SECRET_NAME = re.compile(r"(?i)(token|secret|passw|api_?key|credential|auth|cookie|private)")
_ASSIGNMENT = re.compile(r"(?i)\b([\w.-]*(?:token|secret|passw\w*|api_?key|credential\w*)[\w.-]*)(\s*[=:]\s*)(\S+)")
_LONG_TOKEN = re.compile(
    r"\b(?:hf|sk|ghp|gho|glpat|xox[abp])[-_][A-Za-z0-9_-]{16,}\b|\bey[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_.-]+"
)
_URL_LOGIN = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_SHOWN_VARIABLES = ("PILOTHOUSE_", "QT_", "OMP_", "CUDA_", "LANG", "LC_", "XDG_SESSION", "DISPLAY", "WAYLAND_DISPLAY")
_PACKAGES = (
    "pilothouse",
    "PySide6-Essentials",
    "pyqtgraph",
    "numpy",
    "msgspec",
    "SQLAlchemy",
    "torch",
    "openvino",
    "onnxruntime",
    "nncf",
)
_HIDDEN = "[removed]"


class SettingsController(QObject):
    """Changes settings and gathers diagnostics.

    Signals:
        changed: The new ``Settings``.
        diagnosed: Diagnostics as text, to put on the clipboard.
        bin_counted: How many runs are in the bin.
    """

    changed = Signal(object)
    diagnosed = Signal(str)
    bin_counted = Signal(int)

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._services = services
        services.settings_changed.connect(self.changed)

    @property
    def settings(self) -> Settings:
        """What is set now."""
        return self._services.settings

    @property
    def home_path(self) -> Path:
        """The folder of runs, history and settings."""
        return self._services.home_path

    def set_theme(self, mode: ThemeMode) -> None:
        """Choose light, dark or the system's."""
        self._services.change_settings(theme=mode)

    def set_notify_on_end(self, *, wanted: bool) -> None:
        """Choose whether the desktop tells when a run ends."""
        self._services.change_settings(notify_on_end=wanted)

    def set_smoothing(self, smoothing: float) -> None:
        """Choose the smoothing that new plots start with, from 0 to below 1."""
        self._services.change_settings(smoothing=smoothing)

    def rebuild_history(self) -> None:
        """Make the index over the run folders anew; ``runs_changed`` follows."""
        workspace = self._services.workspace
        Op(workspace.rebuild).finished(self._services.note_runs_changed).start()

    def count_bin(self) -> None:
        """Count the runs in the bin; ``bin_counted`` follows."""
        if self._services.is_open:
            Op(self._services.workspace.binned).succeeded(self._on_bin_listed).start()

    def _on_bin_listed(self, runs: tuple[RunId, ...]) -> None:
        self.bin_counted.emit(len(runs))

    def empty_bin(self) -> None:
        """Remove the runs in the bin for good; ``bin_counted`` and a notice follow."""
        workspace = self._services.workspace
        Op(lambda: workspace.purge(workspace.binned())).succeeded(_on_purged).finished(self.count_bin).start()

    def diagnose(self) -> None:
        """Gather diagnostics; ``diagnosed`` follows."""
        Op(self._diagnostics).succeeded(self.diagnosed.emit).start()

    def _diagnostics(self) -> str:
        lines = [
            f"Pilothouse diagnostics: {platform.platform()}, Python {platform.python_version()}, Qt {qVersion()}",
            f"Data folder: {self.home_path}",
            f"Settings: theme={self.settings.theme}, notify_on_end={self.settings.notify_on_end}",
            "Packages: " + ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
            "Environment: "
            + ", ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if _is_shown(name)),
            f"Interpreter: {sys.executable}",
        ]
        if self._services.is_open:
            report = self._services.workspace.hardware()
            lines.append(
                f"Host: {report.system}, kernel {report.kernel}, {report.cpu.model}, {report.cpu.usable_cores:g} cores"
            )
            lines += [f"GPU {gpu.index}: {gpu.name}, driver {gpu.driver}, {gpu.runtime}" for gpu in report.gpus]
            lines += [f"Problem: {problem.message} {problem.hint}".rstrip() for problem in report.problems]
        lines += _last_crash(self.home_path / "crashes")
        return scrub("\n".join(lines)) + "\n"


def scrub(text: str) -> str:
    """Return text without what looks like a secret, and without the user's name and home folder."""
    text = _URL_LOGIN.sub(_HIDDEN, text)
    text = _ASSIGNMENT.sub(rf"\1\2{_HIDDEN}", text)
    text = _LONG_TOKEN.sub(_HIDDEN, text)
    home, user = _told_by_system(Path.home), _told_by_system(getuser)
    if len(home) > 1:
        text = text.replace(home, "~")
    return re.sub(rf"\b{re.escape(user)}\b", "[user]", text) if len(user) > 2 and user != "root" else text


def _told_by_system(ask: Callable[[], object]) -> str:
    """Return a name; empty for a user id without an entry, as some containers have."""
    try:
        return str(ask())
    except (RuntimeError, KeyError, OSError):
        return ""


def _is_shown(name: str) -> bool:
    return name.startswith(_SHOWN_VARIABLES) and not _SECRET_NAME.search(name)


def _version(package: str) -> str:
    # Costs 40 ms to import, which a start should not pay.
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _last_crash(folder: Path) -> list[str]:
    reports = sorted(folder.glob("crash-*.txt")) if folder.is_dir() else []
    if not reports:
        return ["Crash reports: none"]
    return [f"Crash reports: {len(reports)}; the newest:", reports[-1].read_text(encoding="utf-8", errors="replace")]


def _on_purged(freed_bytes: int) -> None:
    notify(Severity.SUCCESS, f"The bin is empty; {size_text(freed_bytes)} are free again.")
