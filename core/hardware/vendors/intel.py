"""Intel GPUs on Linux through the files of the i915 and xe drivers: how long they were awake, clock, energy, temperatures.

Their true load needs rights that a user lacks (perf), so ``utilization_percent`` is the share of time outside the idle
state: an upper bound of the load. Memory in use and processes are not told by these files.
"""

from __future__ import annotations

from pathlib import Path

from core.contracts.notices import Severity
from core.contracts.telemetry import GpuInfo, GpuProcess, HardwareProblem, Sample
from core.hardware.limits import read_text
from core.hardware.reading import Rates
from core.hardware.vendors._sysfs import (
    cards,
    is_asleep,
    link_generation,
    link_width,
    number,
    sensors,
    temperature_files,
)

VENDOR = "intel"
_PCI_VENDOR = "0x8086"
_IDLE_FILES = ("drm/card*/gt/gt*/rc6_residency_ms", "tile*/gt*/gtidle/idle_residency_ms")
_CLOCK_FILES = ("drm/card*/gt/gt*/rps_act_freq_mhz", "tile*/gt*/freq0/act_freq")
_MEMORY_FILES = ("drm/card*/lmem_total_bytes", "tile0/physical_vram_size_bytes")
_KEYS = (
    "utilization_percent",
    "memory_total_bytes",
    "power_w",
    "power_limit_w",
    "energy_j",
    "temperature_c",
    "memory_temperature_c",
    "sm_clock_hz",
)


class _Card:
    """One GPU: its folder on the bus and the files of its driver, found once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hwmon = sensors(folder)
        self.rates = Rates()
        self._temperatures = temperature_files(self.hwmon)
        self._idle_files = self._files(_IDLE_FILES)
        self._clock_files = self._files(_CLOCK_FILES)
        self.is_served = any(folder.glob("drm/card*"))

    def _files(self, patterns: tuple[str, ...]) -> list[Path]:
        return [file for pattern in patterns for file in sorted(self.folder.glob(pattern))]

    def sample(self, now: float) -> Sample:
        """Return what it reads."""
        if is_asleep(self.folder):
            return dict.fromkeys(_KEYS)
        energy = number(self.hwmon / "energy1_input", 1e-6)
        clocks = [clock for file in self._clock_files if (clock := number(file, 1e6)) is not None]
        return {
            "utilization_percent": self._awake_percent(now),
            "memory_total_bytes": self.memory_bytes(),
            "power_w": self.rates.rate("energy", energy, now),
            "power_limit_w": self.power_limit_w(),
            "energy_j": energy,
            "temperature_c": self._temperature("pkg"),
            "memory_temperature_c": self._temperature("vram"),
            "sm_clock_hz": max(clocks, default=None),
        }

    def _awake_percent(self, now: float) -> float | None:
        """Return the busiest part's share of the time since the last call that it did not idle."""
        idle = [self.rates.rate(str(file), number(file, 1e-3), now) for file in self._idle_files]
        known = [share for share in idle if share is not None]
        return min(100.0, max(0.0, (1.0 - min(known)) * 100.0)) if known else None

    def _temperature(self, label: str) -> float | None:
        file = self._temperatures.get(label)
        return None if file is None else number(file, 1e-3)

    def memory_bytes(self) -> float | None:
        """Return its own memory; None where it shares the machine's."""
        return next((size for file in self._files(_MEMORY_FILES) if (size := number(file))), None)

    def power_limit_w(self) -> float | None:
        """Return the sustained limit; None where there is none (the driver then says 0)."""
        return number(self.hwmon / "power1_max", 1e-6) or None

    def info(self, index: int, vendor_index: int, kernel: str) -> GpuInfo:
        """Return what it is."""
        sleeps = is_asleep(self.folder)
        memory = None if sleeps else self.memory_bytes()
        driver = self.folder / "driver"
        return GpuInfo(
            index=index,
            vendor=VENDOR,
            vendor_index=vendor_index,
            name=f"Intel GPU {read_text(self.folder / 'device').strip()}".strip(),
            pci_bus_id=self.folder.name,
            driver=f"{driver.resolve().name} {kernel}".strip() if driver.exists() else kernel,
            memory_total_bytes=None if memory is None else int(memory),
            power_limit_w=None if sleeps else self.power_limit_w(),
            pcie_generation=link_generation(self.folder, "current_link_speed"),
            pcie_width=link_width(self.folder, "current_link_width"),
            max_pcie_generation=link_generation(self.folder, "max_link_speed"),
            max_pcie_width=link_width(self.folder, "max_link_width"),
        )


class IntelReader:
    """All Intel GPUs that i915 or xe serve, as ``core.hardware.vendors.GpuReader`` asks.

    Args:
        sys: The system's folder of devices; another one in tests.
        proc: Folder that tells the kernel's release, which is the driver's version.
    """

    def __init__(self, sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> None:
        found = [_Card(folder) for folder in cards(_PCI_VENDOR, sys / "bus" / "pci" / "devices")]
        self._cards = [card for card in found if card.is_served]
        self._missing = len(found) - len(self._cards)
        self._kernel = read_text(proc / "sys" / "kernel" / "osrelease").strip()

    @property
    def problems(self) -> tuple[HardwareProblem, ...]:
        """GPUs without a driver; a machine without Intel GPUs has none."""
        if not self._missing:
            return ()
        return (
            HardwareProblem(
                part=VENDOR,
                severity=Severity.INFO,
                message="An Intel GPU is built in, but neither the i915 nor the xe driver serves it.",
                hint="A newer kernel may bring its driver; the computer works without it.",
            ),
        )

    def read(self, run_pids: frozenset[int], now: float) -> tuple[Sample, ...]:
        """Return one sample per GPU; see ``GpuReader.read``."""
        del run_pids
        return tuple(card.sample(now) for card in self._cards)

    def describe(self, first_index: int) -> tuple[GpuInfo, ...]:
        """Return the GPUs in the order of the bus."""
        return tuple(card.info(first_index + place, place, self._kernel) for place, card in enumerate(self._cards))

    def processes(self, first_index: int) -> tuple[GpuProcess, ...]:
        """Return nothing: these files do not tell."""
        del first_index
        return ()

    def close(self) -> None:
        """Hold nothing."""


def open_reader() -> IntelReader:
    """Look for Intel GPUs; on other systems than Linux there are none to see."""
    return IntelReader()
