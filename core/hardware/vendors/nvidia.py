"""NVIDIA GPUs: which numbers to read, how often, and what they mean. The driver's faults are handled in ``_nvml.py``.

Nothing that blocks is asked (``nvmlDeviceGetPcieThroughput`` measures for 20 ms): PCIe and NVLink come from counters, or
from GPM on Hopper and later. Numbers that hardly move are read every ``SLOW_PERIOD_S``. A lost GPU reads None while the
others go on; every ``retry_s`` the driver is opened anew to see whether it is back.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from core.contracts.telemetry import GpuInfo, GpuProcess, HardwareProblem, Sample
from core.contracts.units import is_held_back
from core.hardware.reading import Rates
from core.hardware.vendors import _nvml
from core.hardware.vendors._gpm import GpmSampler
from core.hardware.vendors._nvml import GpuLostError, Nvml

RETRY_S = 60.0
SLOW_PERIOD_S = 5.0

_ALL_LINKS = 0xFFFFFFFF
_MEMORY_V2 = 0x02000028
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1

_FIELD_MEMORY_TEMPERATURE = 82
_FIELD_NVLINK_TX_KIB, _FIELD_NVLINK_RX_KIB = 138, 139
_FIELD_PCIE_TX_BYTES, _FIELD_PCIE_RX_BYTES = 197, 198
_FIELD_NVLINK_LINKS = 91
_FIELDS = (
    _FIELD_MEMORY_TEMPERATURE,
    (_FIELD_NVLINK_TX_KIB, _ALL_LINKS),
    (_FIELD_NVLINK_RX_KIB, _ALL_LINKS),
    _FIELD_PCIE_TX_BYTES,
    _FIELD_PCIE_RX_BYTES,
)
_COUNTERS = (
    ("pcie_tx_bytes_per_s", _FIELD_PCIE_TX_BYTES, 1.0),
    ("pcie_rx_bytes_per_s", _FIELD_PCIE_RX_BYTES, 1.0),
    ("nvlink_tx_bytes_per_s", _FIELD_NVLINK_TX_KIB, 1024.0),
    ("nvlink_rx_bytes_per_s", _FIELD_NVLINK_RX_KIB, 1024.0),
)
_LOST_KEYS = ("utilization_percent", "memory_used_bytes", "memory_total_bytes", "power_w", "temperature_c")


class _Device:
    """One GPU: its handle, what it is called in problems, and what the last reading left behind."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.part = f"nvidia gpu {index}"
        self.handle: Any = None
        self.lost_code: int | None = None
        self.keys: tuple[str, ...] = _LOST_KEYS
        self.rates = Rates()
        self.slow: Sample = {}
        self.slow_due = 0.0
        self.info: GpuInfo | None = None
        self.gpm: GpmSampler | None = None


class NvidiaReader:
    """All NVIDIA GPUs of this host, as ``core.hardware.vendors.GpuReader`` asks.

    Args:
        retry_s: How long to wait before a driver or GPU that went away is tried again.
    """

    def __init__(self, retry_s: float = RETRY_S) -> None:
        self._nvml = Nvml()
        self._retry_s = retry_s
        self._retry_due = 0.0
        self._devices: list[_Device] = []
        self._open()

    @property
    def problems(self) -> tuple[HardwareProblem, ...]:
        """What is wrong at present."""
        return self._nvml.problems

    def _open(self) -> None:
        self._retry_due = time.monotonic() + self._retry_s
        known = {device.index: device.info for device in self._devices}
        count = int(self._nvml.call(_nvml.PART, "nvmlDeviceGetCount") or 0) if self._nvml.open() else 0
        if not self._nvml.is_open:
            # A driver that went away keeps its GPUs on the screen, without readings.
            for device in self._devices:
                device.handle = None
            return
        self._devices = [_Device(index) for index in range(count)]
        for device in self._devices:
            device.info = known.get(device.index)
            try:
                device.handle = self._nvml.call(device.part, "nvmlDeviceGetHandleByIndex", device.index)
                if device.handle is not None:
                    device.gpm = GpmSampler.open(self._nvml, device.part, device.handle)
            except GpuLostError as error:
                device.lost_code = error.code

    def _reopen_when_due(self) -> None:
        is_whole = self._nvml.is_open and not self._nvml.is_gone
        is_whole = is_whole and not any(device.lost_code is not None for device in self._devices)
        if is_whole or time.monotonic() < self._retry_due:
            return
        self.close()
        self._open()

    def read(self, run_pids: frozenset[int], now: float) -> tuple[Sample, ...]:
        """Return one sample per GPU; see ``GpuReader.read``."""
        self._reopen_when_due()
        return tuple(self._read_device(device, run_pids, now) for device in self._devices)

    def _read_device(self, device: _Device, run_pids: frozenset[int], now: float) -> Sample:
        if device.handle is None or device.lost_code is not None:
            return dict.fromkeys(device.keys)
        try:
            sample = self._load(device) | self._counted(device, now) | self._throttling(device)
            sample |= self._holders(device, run_pids)
            if now >= device.slow_due:
                device.slow = self._slow(device)
                device.slow_due = now + SLOW_PERIOD_S
            sample |= device.slow
            if device.gpm is not None:
                for key, value in device.gpm.read().items():
                    sample[key] = value if sample.get(key) is None else sample[key]
        except GpuLostError as error:
            device.lost_code = error.code
            return dict.fromkeys(device.keys)
        device.keys = tuple(sample)
        return sample

    def _ask(self, device: _Device, function: str, *args: object, is_quiet: bool = False) -> Any:
        return self._nvml.call(device.part, function, device.handle, *args, is_quiet=is_quiet)

    def _number(self, device: _Device, function: str, *args: object, scale: float = 1.0) -> float | None:
        value = self._ask(device, function, *args)
        if isinstance(value, (list, tuple)):
            value = value[0]
        return None if value is None else float(value) * scale

    def _load(self, device: _Device) -> Sample:
        """Utilization, memory, power, temperature and clocks: the numbers that move."""
        busy = self._ask(device, "nvmlDeviceGetUtilizationRates")
        memory = self._memory(device)
        return {
            "utilization_percent": None if busy is None else float(busy.gpu),
            "memory_utilization_percent": None if busy is None else float(busy.memory),
            "memory_used_bytes": None if memory is None else float(memory.used),
            "memory_total_bytes": None if memory is None else float(memory.total),
            "encoder_percent": self._number(device, "nvmlDeviceGetEncoderUtilization"),
            "decoder_percent": self._number(device, "nvmlDeviceGetDecoderUtilization"),
            "power_w": self._number(device, "nvmlDeviceGetPowerUsage", scale=1e-3),
            "energy_j": self._number(device, "nvmlDeviceGetTotalEnergyConsumption", scale=1e-3),
            "temperature_c": self._number(device, "nvmlDeviceGetTemperature", 0),
            "sm_clock_hz": self._number(device, "nvmlDeviceGetClockInfo", _SM_CLOCK, scale=1e6),
            "memory_clock_hz": self._number(device, "nvmlDeviceGetClockInfo", _MEMORY_CLOCK, scale=1e6),
        }

    def _memory(self, device: _Device) -> Any:
        """Version 2 leaves out what the driver reserves for itself; version 1 counts it as used."""
        memory = self._ask(device, "nvmlDeviceGetMemoryInfo", _MEMORY_V2, is_quiet=True)
        return self._ask(device, "nvmlDeviceGetMemoryInfo") if memory is None else memory

    def _counted(self, device: _Device, now: float) -> Sample:
        """Memory temperature and the PCIe and NVLink counters, all in one call."""
        values = self._fields(device, _FIELDS)
        sample: Sample = {"memory_temperature_c": values.get(_FIELD_MEMORY_TEMPERATURE)}
        for key, field, unit_bytes in _COUNTERS:
            total = values.get(field)
            sample[key] = device.rates.rate(key, None if total is None else total * unit_bytes, now)
        return sample

    def _fields(self, device: _Device, fields: tuple[object, ...]) -> dict[int, float]:
        answer = self._ask(device, "nvmlDeviceGetFieldValues", list(fields))
        found: dict[int, float] = {}
        for entry in answer if answer is not None else ():
            if entry.nvmlReturn == 0:
                found[int(entry.fieldId)] = self._value_of(entry)
        return found

    def _value_of(self, entry: Any) -> float:
        names = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
        return float(getattr(entry.value, names[entry.valueType]))

    def _throttling(self, device: _Device) -> Sample:
        mask = self._ask(device, "nvmlDeviceGetCurrentClocksEventReasons", is_quiet=True)
        if mask is None:
            mask = self._ask(device, "nvmlDeviceGetCurrentClocksThrottleReasons")
        return {
            "throttle_reasons": None if mask is None else float(mask),
            "throttled": None if mask is None else float(is_held_back(int(mask))),
        }

    def _slow(self, device: _Device) -> Sample:
        sample: Sample = {
            "power_limit_w": self._number(device, "nvmlDeviceGetEnforcedPowerLimit", scale=1e-3),
            "fan_percent": self._number(device, "nvmlDeviceGetFanSpeed"),
        }
        for kind, kind_name in ((_CORRECTED, "corrected"), (_UNCORRECTED, "uncorrected")):
            for span, span_name in ((_VOLATILE, "volatile"), (_AGGREGATE, "aggregate")):
                key = f"ecc_{kind_name}_{span_name}"
                sample[key] = self._number(device, "nvmlDeviceGetTotalEccErrors", kind, span)
        return sample

    def _holders(self, device: _Device, run_pids: frozenset[int]) -> Sample:
        listed = self._lists(device)
        if listed["compute"] is None:
            return dict.fromkeys(("processes", "run_memory_used_bytes") if run_pids else ("processes",))
        holders = [process for part in listed.values() for process in part or ()]
        sample: Sample = {"processes": float(len({process.pid for process in holders}))}
        if run_pids:
            # A process that computes and draws stands in both lists with the same memory.
            held = {process.pid: process.usedGpuMemory for process in holders if process.pid in run_pids}
            is_told = all(memory is not None for memory in held.values())
            sample["run_memory_used_bytes"] = float(sum(held.values())) if is_told else None
        return sample

    def _lists(self, device: _Device) -> dict[str, list[Any] | None]:
        """Return the driver's lists of processes by use; None for a list that it does not give."""
        lists = {use: self._listed(device, use.capitalize()) for use in ("compute", "graphics")}
        if None not in lists.values():
            self._nvml.forget(device.part, _nvml.INSUFFICIENT_SIZE)
        return lists

    def _listed(self, device: _Device, use: str) -> list[Any] | None:
        """Return one list; it is asked for twice, since it may grow between the question for its size and itself."""
        for function in (f"nvmlDeviceGet{use}RunningProcesses_v3", f"nvmlDeviceGet{use}RunningProcesses_v2"):
            for _ in range(2):
                found = self._ask(device, function, is_quiet=function.endswith("_v3"))
                if found is not None:
                    return list(found)
        return None

    def processes(self, first_index: int) -> tuple[GpuProcess, ...]:
        """Return who holds the GPUs, as the driver sees them."""
        found: list[GpuProcess] = []
        for device in self._devices:
            if device.handle is None or device.lost_code is not None:
                continue
            try:
                lists = self._lists(device)
            except GpuLostError as error:
                device.lost_code = error.code
                continue
            found += [
                GpuProcess(
                    gpu_index=first_index + device.index,
                    pid=int(process.pid),
                    use=use,
                    memory_bytes=None if process.usedGpuMemory is None else int(process.usedGpuMemory),
                )
                for use, part in lists.items()
                for process in part or ()
            ]
        return tuple(found)

    def describe(self, first_index: int) -> tuple[GpuInfo, ...]:
        """Return the GPUs; one that is lost keeps what was known of it, with the reason."""
        self._reopen_when_due()
        return tuple(self._describe_device(device, first_index + device.index) for device in self._devices)

    def _describe_device(self, device: _Device, index: int) -> GpuInfo:
        if device.handle is not None and device.lost_code is None:
            try:
                device.info = self._facts(device, index)
            except GpuLostError as error:
                device.lost_code = error.code
            else:
                return device.info
        known = device.info or GpuInfo(
            index=index, vendor=_nvml.PART, vendor_index=device.index, name=f"NVIDIA GPU {device.index}"
        )
        reasons = (problem.message for problem in self.problems if problem.part in (device.part, _nvml.PART))
        return msgspec.structs.replace(
            known, index=index, problem=next(reasons, "The NVIDIA driver does not give access to it.")
        )

    def _facts(self, device: _Device, index: int) -> GpuInfo:
        """Ask for what does not change while the driver is open."""
        memory = self._memory(device)
        pci = self._ask(device, "nvmlDeviceGetPciInfo")
        capability = self._ask(device, "nvmlDeviceGetCudaComputeCapability")
        runtime = self._nvml.call(_nvml.PART, "nvmlSystemGetCudaDriverVersion_v2")
        return GpuInfo(
            index=index,
            vendor=_nvml.PART,
            vendor_index=device.index,
            name=str(self._ask(device, "nvmlDeviceGetName") or f"NVIDIA GPU {device.index}"),
            uuid=str(self._ask(device, "nvmlDeviceGetUUID") or ""),
            pci_bus_id="" if pci is None else str(_text(pci.busId)),
            driver=self._nvml.driver,
            runtime="" if runtime is None else f"CUDA {runtime // 1000}.{runtime % 1000 // 10}",
            memory_total_bytes=None if memory is None else int(memory.total),
            compute_capability="" if capability is None else f"{capability[0]}.{capability[1]}",
            power_limit_w=self._number(device, "nvmlDeviceGetEnforcedPowerLimit", scale=1e-3),
            max_sm_clock_hz=self._number(device, "nvmlDeviceGetMaxClockInfo", _SM_CLOCK, scale=1e6),
            pcie_generation=self._count(device, "nvmlDeviceGetCurrPcieLinkGeneration"),
            pcie_width=self._count(device, "nvmlDeviceGetCurrPcieLinkWidth"),
            max_pcie_generation=self._count(device, "nvmlDeviceGetMaxPcieLinkGeneration"),
            max_pcie_width=self._count(device, "nvmlDeviceGetMaxPcieLinkWidth"),
            nvlink_links=_whole(self._fields(device, (_FIELD_NVLINK_LINKS,)).get(_FIELD_NVLINK_LINKS)),
            ecc_enabled=self._switch(device, "nvmlDeviceGetEccMode"),
            mig_enabled=self._switch(device, "nvmlDeviceGetMigMode"),
        )

    def _count(self, device: _Device, function: str) -> int | None:
        return _whole(self._number(device, function))

    def _switch(self, device: _Device, function: str) -> bool | None:
        value = self._number(device, function)
        return None if value is None else value == 1.0

    def close(self) -> None:
        """Free what the driver gave us and shut it down."""
        for device in self._devices:
            if device.gpm is not None:
                device.gpm.close()
                device.gpm = None
        self._nvml.close()


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _text(raw: str | bytes) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def open_reader() -> NvidiaReader:
    """Open the NVIDIA driver; without one, a reader that has no GPUs and one problem."""
    return NvidiaReader()
