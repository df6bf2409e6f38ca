"""The table of GPUs: what each is, how busy and how full it is now, and who holds it."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app.viewmodels.reading_history import TelemetrySample
from app.viewmodels.wording import size_text
from core.contracts.telemetry import GpuInfo, GpuProcess, HardwareReport

COLUMNS = ("GPU", "Name", "Busy", "Memory", "Power", "Temperature", "Held by", "Driver")
_LIVE_FIRST, _LIVE_LAST = 2, 5


class DeviceTable(QAbstractTableModel):
    """GPUs of a host. UI thread."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._gpus: tuple[GpuInfo, ...] = ()
        self._holders: dict[int, list[GpuProcess]] = {}
        self._sample: TelemetrySample | None = None

    def set_report(self, report: HardwareReport | None) -> None:
        """Take the GPUs of a report and who holds them; None: of no host."""
        self.beginResetModel()
        self._gpus = () if report is None else report.gpus
        self._holders = {}
        if report is None:
            self._sample = None
        for process in () if report is None else report.gpu_processes:
            self._holders.setdefault(process.gpu_index, []).append(process)
        self.endResetModel()

    def set_sample(self, sample: TelemetrySample) -> None:
        """Take new readings."""
        self._sample = sample
        if self._gpus:
            self.dataChanged.emit(self.index(0, _LIVE_FIRST), self.index(len(self._gpus) - 1, _LIVE_LAST))

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of GPUs."""
        return 0 if parent.isValid() else len(self._gpus)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        """Return the heading of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation is Qt.Orientation.Horizontal and section < len(COLUMNS):
            return COLUMNS[section]
        return None

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return a cell's text, or the whole story of a GPU as its tooltip."""
        if not index.isValid() or not 0 <= index.row() < len(self._gpus):
            return None
        gpu = self._gpus[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(gpu, index.column())
        if role == Qt.ItemDataRole.ToolTipRole:
            return gpu.problem or "\n".join(_story(gpu, self._holders.get(gpu.index, [])))
        return None

    def _text(self, gpu: GpuInfo, column: int) -> str:
        texts = (
            lambda: str(gpu.index),
            lambda: gpu.name,
            lambda: "not readable" if gpu.problem else self._reading(gpu, "utilization_percent", " %"),
            lambda: self._memory(gpu),
            lambda: self._reading(gpu, "power_w", " W"),
            lambda: self._reading(gpu, "temperature_c", " °C"),
            lambda: holders_text(self._holders.get(gpu.index, [])),
            lambda: " · ".join(part for part in (gpu.driver, gpu.runtime) if part),
        )
        return texts[column]()

    def _value(self, gpu: GpuInfo, name: str) -> float | None:
        return None if self._sample is None else self._sample.get(f"gpu.{gpu.index}.{name}")

    def _reading(self, gpu: GpuInfo, name: str, unit: str) -> str:
        value = self._value(gpu, name)
        return "—" if value is None else f"{value:.0f}{unit}"

    def _memory(self, gpu: GpuInfo) -> str:
        used, total = self._value(gpu, "memory_used_bytes"), gpu.memory_total_bytes
        if used is None:
            return "—" if total is None else size_text(total)
        return size_text(used) if total is None else f"{size_text(used)} of {size_text(total)}"


def holders_text(holders: list[GpuProcess]) -> str:
    """Return who holds a GPU, such as ``ann: python (1.2 GiB)``."""
    if not holders:
        return "free"
    return ", ".join(_holder(process) for process in holders)


def _holder(process: GpuProcess) -> str:
    who = f"{process.user}: " if process.user else ""
    name = process.name or f"process {process.pid}"
    return f"{who}{name}" + ("" if process.memory_bytes is None else f" ({size_text(process.memory_bytes)})")


def _story(gpu: GpuInfo, holders: list[GpuProcess]) -> list[str]:
    lines = [f"{gpu.name} ({gpu.vendor} {gpu.vendor_index})"]
    if gpu.compute_capability:
        lines.append(f"Compute capability {gpu.compute_capability}")
    if gpu.pcie_generation is not None and gpu.pcie_width is not None:
        lines.append(f"PCIe generation {gpu.pcie_generation}, {gpu.pcie_width} lanes")
    if gpu.uuid:
        lines.append(gpu.uuid)
    lines += [_holder(process) for process in holders]
    return lines
