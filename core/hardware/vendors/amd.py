"""AMD GPUs on Linux through the amdgpu driver's files: load, memory, power, clocks and temperatures, and who holds them.

Needs no ROCm. ``pcie_bw`` is not read, since it measures for a second. A GPU that the system has put to sleep is left
asleep and reads None. Processes and the architecture's name come from the compute driver (kfd) where it is loaded.
"""

from __future__ import annotations

import re
from pathlib import Path

from core.contracts.notices import Severity
from core.contracts.telemetry import GpuInfo, GpuProcess, HardwareProblem, Sample
from core.hardware.limits import read_text
from core.hardware.vendors._sysfs import (
    cards,
    is_asleep,
    link_generation,
    link_width,
    number,
    sensors,
    temperature_files,
)

VENDOR = "amd"
_PCI_VENDOR = "0x1002"
_ERRORS = re.compile(r"(ue|ce): (\d+)")
_KEYS = (
    "utilization_percent",
    "memory_utilization_percent",
    "memory_used_bytes",
    "memory_total_bytes",
    "power_w",
    "power_limit_w",
    "temperature_c",
    "memory_temperature_c",
    "fan_percent",
    "sm_clock_hz",
    "memory_clock_hz",
    "ecc_corrected_volatile",
    "ecc_uncorrected_volatile",
    "processes",
)


class _Card:
    """One GPU: its folder on the bus, its sensors, and its number in the compute driver."""

    def __init__(self, folder: Path, kfd: Path) -> None:
        self.folder = folder
        self.kfd = kfd
        self.hwmon = sensors(folder)
        self.node = self._node()
        self._temperatures = temperature_files(self.hwmon)

    def _node(self) -> dict[str, str]:
        """Return the properties of the compute driver's node at this place of the bus; empty without one."""
        for properties in sorted(self.kfd.glob("topology/nodes/*/properties")):
            lines = [line.split() for line in read_text(properties).splitlines()]
            fields = {words[0]: words[1] for words in lines if len(words) == 2}
            place = int(fields.get("location_id", "0"))
            name = f"{int(fields.get('domain', '0')):04x}:{place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}"
            if place and name == self.folder.name:
                return fields | {"gpu_id": read_text(properties.with_name("gpu_id")).strip()}
        return {}

    def sample(self) -> Sample:
        """Return what it reads."""
        if is_asleep(self.folder):
            return dict.fromkeys(_KEYS)
        power = number(self.hwmon / "power1_average", 1e-6)
        fan, fan_limit = number(self.hwmon / "pwm1"), number(self.hwmon / "pwm1_max") or 255.0
        errors = dict(_ERRORS.findall(read_text(self.folder / "ras" / "umc_err_count")))
        held = self.held_bytes()
        return {
            "utilization_percent": number(self.folder / "gpu_busy_percent"),
            "memory_utilization_percent": number(self.folder / "mem_busy_percent"),
            "memory_used_bytes": number(self.folder / "mem_info_vram_used"),
            "memory_total_bytes": number(self.folder / "mem_info_vram_total"),
            "power_w": number(self.hwmon / "power1_input", 1e-6) if power is None else power,
            "power_limit_w": number(self.hwmon / "power1_cap", 1e-6),
            "temperature_c": self._temperature("edge") or self._temperature("junction"),
            "memory_temperature_c": self._temperature("mem"),
            "fan_percent": None if fan is None else fan / fan_limit * 100.0,
            "sm_clock_hz": number(self.hwmon / "freq1_input"),
            "memory_clock_hz": number(self.hwmon / "freq2_input"),
            "ecc_corrected_volatile": float(errors["ce"]) if "ce" in errors else None,
            "ecc_uncorrected_volatile": float(errors["ue"]) if "ue" in errors else None,
            "processes": None if held is None else float(len(held)),
        }

    def _temperature(self, label: str) -> float | None:
        file = self._temperatures.get(label)
        return None if file is None else number(file, 1e-3)

    def held_bytes(self) -> dict[int, float] | None:
        """Return the memory that each process holds, by pid; None where the compute driver is not loaded."""
        if not self.node:
            return None
        files = self.kfd.glob(f"proc/*/vram_{self.node['gpu_id']}")
        held = {int(file.parent.name): number(file) for file in files if file.parent.name.isdigit()}
        return {pid: amount for pid, amount in held.items() if amount is not None}

    def info(self, index: int, vendor_index: int, driver: str, runtime: str) -> GpuInfo:
        """Return what it is."""
        total = None if is_asleep(self.folder) else number(self.folder / "mem_info_vram_total")
        device = read_text(self.folder / "device").strip()
        return GpuInfo(
            index=index,
            vendor=VENDOR,
            vendor_index=vendor_index,
            name=read_text(self.folder / "product_name").strip() or f"AMD GPU {device}".strip(),
            uuid=read_text(self.folder / "unique_id").strip(),
            pci_bus_id=self.folder.name,
            driver=driver,
            runtime=runtime,
            memory_total_bytes=None if total is None else int(total),
            compute_capability=_architecture(self.node.get("gfx_target_version", "0")),
            power_limit_w=None if is_asleep(self.folder) else number(self.hwmon / "power1_cap", 1e-6),
            pcie_generation=link_generation(self.folder, "current_link_speed"),
            pcie_width=link_width(self.folder, "current_link_width"),
            max_pcie_generation=link_generation(self.folder, "max_link_speed"),
            max_pcie_width=link_width(self.folder, "max_link_width"),
        )


def _architecture(version: str) -> str:
    """Return the compiler's name of an architecture: 90402 is ``gfx942``, 90010 is ``gfx90a``."""
    target = int(version)
    return f"gfx{target // 10000}{target // 100 % 100:x}{target % 100:x}" if target else ""


class AmdReader:
    """All AMD GPUs that the amdgpu driver serves, as ``core.hardware.vendors.GpuReader`` asks.

    Args:
        sys: The system's folder of devices; another one in tests.
        rocm: Folder of ROCm, whose version is told where it is installed.
    """

    def __init__(self, sys: Path = Path("/sys"), rocm: Path = Path("/opt/rocm")) -> None:
        bus = sys / "bus" / "pci" / "devices"
        kfd = sys / "class" / "kfd" / "kfd"
        found = cards(_PCI_VENDOR, bus)
        self._cards = [_Card(folder, kfd) for folder in found if (folder / "mem_info_vram_total").exists()]
        self._driver = read_text(sys / "module" / "amdgpu" / "version").strip()
        version = read_text(rocm / ".info" / "version").strip()
        self._runtime = f"ROCm {version}" if version else ""
        self._missing = len(found) - len(self._cards)

    @property
    def problems(self) -> tuple[HardwareProblem, ...]:
        """Cards without their driver; a machine without AMD cards has none."""
        if self._missing <= 0:
            return ()
        what = "An AMD card is" if self._missing == 1 else f"{self._missing} AMD cards are"
        return (
            HardwareProblem(
                part=VENDOR,
                severity=Severity.WARNING,
                message=f"{what} built in, but the amdgpu driver does not serve it.",
                hint="Load the driver (`sudo modprobe amdgpu`) or install the one of ROCm.",
            ),
        )

    def read(self, run_pids: frozenset[int], now: float) -> tuple[Sample, ...]:
        """Return one sample per GPU; see ``GpuReader.read``."""
        del now
        samples: list[Sample] = []
        for card in self._cards:
            sample = card.sample()
            if run_pids:
                held = None if is_asleep(card.folder) else card.held_bytes()
                own = None if held is None else sum(amount for pid, amount in held.items() if pid in run_pids)
                sample["run_memory_used_bytes"] = None if own is None else float(own)
            samples.append(sample)
        return tuple(samples)

    def describe(self, first_index: int) -> tuple[GpuInfo, ...]:
        """Return the GPUs in the order of the bus."""
        return tuple(
            card.info(first_index + place, place, self._driver, self._runtime) for place, card in enumerate(self._cards)
        )

    def processes(self, first_index: int) -> tuple[GpuProcess, ...]:
        """Return who computes on them."""
        return tuple(
            GpuProcess(gpu_index=first_index + place, pid=pid, use="compute", memory_bytes=int(amount))
            for place, card in enumerate(self._cards)
            for pid, amount in sorted((card.held_bytes() or {}).items())
        )

    def close(self) -> None:
        """Hold nothing."""


def open_reader() -> AmdReader:
    """Look for AMD GPUs; on other systems than Linux there are none to see."""
    return AmdReader()
