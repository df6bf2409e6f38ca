"""NVIDIA's management library (NVML) through nvidia-ml-py, with each fault turned into None and a sentence.

``Nvml.call`` asks one thing of the driver. What a card or driver cannot tell is not asked again for
``UNSUPPORTED_PERIOD_S``; a fault that needs somebody to act becomes one ``HardwareProblem`` with its remedy.
Which numbers to ask for is left to ``nvidia.py``.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from core.contracts.notices import Severity
from core.contracts.telemetry import HardwareProblem
from core.hardware.vendors._sysfs import cards

PART = "nvidia"
UNSUPPORTED_PERIOD_S = 60.0

UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
NO_DATA = 21

LOST_CODES = frozenset({GPU_IS_LOST, RESET_REQUIRED})
GONE_CODES = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, VERSION_MISMATCH})
"""The whole driver went away, such as by an update under our feet: everything must be opened anew."""

_SILENT_CODES = frozenset({NOT_SUPPORTED, NO_DATA})
_RESTING_CODES = frozenset({NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND})

_TEXTS: dict[int, tuple[Severity, str, str]] = {
    UNINITIALIZED: (
        Severity.WARNING,
        "The NVIDIA driver was closed under our feet.",
        "Nothing to do: it is opened again in a moment.",
    ),
    NO_PERMISSION: (
        Severity.WARNING,
        "The NVIDIA driver does not let this user read everything.",
        "Ask the administrator to lift the restriction (NVreg_RestrictProfilingToAdminUsers=0) or to give access to /dev/nvidia*.",
    ),
    INSUFFICIENT_SIZE: (
        Severity.INFO,
        "The list of processes on a GPU changed faster than it could be read.",
        "Nothing to do: it is read again with the next sample.",
    ),
    DRIVER_NOT_LOADED: (
        Severity.ERROR,
        "The NVIDIA driver is installed but not loaded.",
        "Run `sudo modprobe nvidia`, or reboot; after a kernel update reinstall the driver.",
    ),
    GPU_IS_LOST: (
        Severity.ERROR,
        "The GPU has fallen off the bus and does not answer.",
        "Stop what runs on it and reboot; if it comes again, check its seat, power and cooling (look for Xid 79 in dmesg).",
    ),
    RESET_REQUIRED: (
        Severity.ERROR,
        "The GPU must be reset before it can be used again.",
        "End the processes that hold it and run `sudo nvidia-smi --gpu-reset`, or reboot.",
    ),
    VERSION_MISMATCH: (
        Severity.ERROR,
        "The NVIDIA driver and its library have different versions, as after an update without a restart.",
        "Reboot; running GPU jobs go on until then, but new ones cannot start.",
    ),
}


class Nvml:
    """The library, opened or not.

    Attributes:
        api: The ``pynvml`` module: its structures and numbers.
        is_open: True between a good ``open`` and ``close``.
        driver: Version of the driver; empty while unknown.
        is_gone: True once a call said that the whole driver went away.
    """

    def __init__(self) -> None:
        self.api: Any = importlib.import_module("pynvml")
        self.is_open = False
        self.driver = ""
        self.is_gone = False
        self._problems: dict[tuple[str, int], HardwareProblem] = {}
        self._missing: set[str] = set()
        self._resting: dict[tuple[str, str], float] = {}

    @property
    def problems(self) -> tuple[HardwareProblem, ...]:
        """What is wrong at present, readings that the driver is too old for in one sentence."""
        if not self._missing:
            return tuple(self._problems.values())
        old = HardwareProblem(
            part=PART,
            severity=Severity.INFO,
            message=f"The NVIDIA driver {self.driver} is too old for some readings ({', '.join(sorted(self._missing))}).",
            hint="Update the driver to have them.",
        )
        return (*self._problems.values(), old)

    def open(self) -> bool:
        """Load and initialize the library; False with a problem noted where that fails."""
        self._problems.clear()
        self._missing.clear()
        self._resting.clear()
        self.is_gone = False
        try:
            self.api.nvmlInit()
        except self.api.NVMLError as error:
            self.note(PART, int(error.value))
            return False
        self.is_open = True
        self.driver = str(self.call(PART, "nvmlSystemGetDriverVersion") or "")
        return True

    def close(self) -> None:
        """Shut our use of the library down; others in this process keep theirs."""
        if not self.is_open:
            return
        self.is_open = False
        try:
            self.api.nvmlShutdown()
        except self.api.NVMLError as error:
            # Already shut down by a driver that went away: there is nothing left to let go of.
            if int(error.value) not in GONE_CODES:
                self.note(PART, int(error.value))

    def call(self, part: str, function: str, *args: object, is_quiet: bool = False) -> Any:
        """Ask the driver; None where it cannot tell.

        Args:
            part: Whom a problem concerns, such as ``nvidia gpu 0``; rests are kept per part and question.
            function: Name of the ``pynvml`` function.
            args: Its arguments.
            is_quiet: True where there is another way to ask, so that a missing function is no problem.

        Raises:
            GpuLostError: The GPU that was asked does not answer any more.
        """
        # The first plain argument tells questions of one function apart, such as which clock.
        question = (part, f"{function}{args[1:2]}")
        resting_until = self._resting.get(question)
        if resting_until is not None:
            if time.monotonic() < resting_until:
                return None
            del self._resting[question]
        try:
            return getattr(self.api, function)(*args)
        except self.api.NVMLError as error:
            code = int(error.value)
        except (AttributeError, UnicodeDecodeError):
            # The installed nvidia-ml-py does not know the function, or the driver's text is damaged.
            code = FUNCTION_NOT_FOUND
        if code in _RESTING_CODES:
            self._resting[question] = time.monotonic() + UNSUPPORTED_PERIOD_S
        if code == FUNCTION_NOT_FOUND and not is_quiet:
            self._missing.add(function)
        elif code != FUNCTION_NOT_FOUND:
            self.note(part, code)
        if code in LOST_CODES:
            raise GpuLostError(code)
        self.is_gone = self.is_gone or code in GONE_CODES
        return None

    def note(self, part: str, code: int) -> None:
        """Remember what is wrong with a part, once per kind of fault."""
        if code not in _SILENT_CODES:
            self._problems[part, code] = self._problem(part, code)

    def forget(self, part: str, code: int) -> None:
        """Drop a problem that is over."""
        self._problems.pop((part, code), None)

    def _problem(self, part: str, code: int) -> HardwareProblem:
        if code == LIBRARY_NOT_FOUND:
            return _library_problem()
        if code in _TEXTS:
            severity, message, hint = _TEXTS[code]
        else:
            severity = Severity.WARNING
            message = f"The NVIDIA driver answered with a fault: {self.api.NVMLError(code)} (code {code})."
            hint = "Look for NVRM or Xid lines in the system log; updating the driver or a reboot often helps."
        where = "" if part == PART else f" ({part})"
        return HardwareProblem(part=part, severity=severity, message=f"{message.removesuffix('.')}{where}.", hint=hint)


class GpuLostError(Exception):
    """A GPU does not answer any more; ``code`` is NVML's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _library_problem() -> HardwareProblem:
    count = len(cards("0x10de"))
    if not count:
        return HardwareProblem(
            part=PART,
            severity=Severity.INFO,
            message="No NVIDIA driver is installed, so NVIDIA GPUs are not shown.",
            hint="If this machine has one, install its driver.",
        )
    what = "An NVIDIA card is" if count == 1 else f"{count} NVIDIA cards are"
    return HardwareProblem(
        part=PART,
        severity=Severity.ERROR,
        message=f"{what} built in, but the driver's library (libnvidia-ml.so.1) is missing.",
        hint="Install the NVIDIA driver; in a container, start it with access to the GPUs (`--gpus all`).",
    )
