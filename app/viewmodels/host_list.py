"""The list of hosts: this computer first, then the others by name; each with its connection and how busy it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app.viewmodels.host_wording import THIS_COMPUTER, address_text, host_title, link_look
from app.viewmodels.reading_history import TelemetrySample
from app.viewmodels.wording import natural_key
from core.contracts.hosts import LOCAL_HOST, HostRecord, HostStatus, LinkState

HOST_ROLE = int(Qt.ItemDataRole.UserRole) + 1

AnyIndex = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """One host as the list shows it; ``cpu`` and ``gpu`` are shares from 0 to 1, None where not told."""

    name: str
    title: str
    detail: str
    status: HostStatus
    cpu: float | None = None
    gpu: float | None = None


def busy_shares(values: dict[str, float | None]) -> tuple[float | None, float | None]:
    """Return how busy processors and GPUs (their mean) are, from 0 to 1."""
    cpu = values.get("cpu.percent")
    gpus = [
        value
        for key, value in values.items()
        if key.startswith("gpu.") and key.endswith(".utilization_percent") and value is not None
    ]
    return None if cpu is None else cpu / 100, sum(gpus) / len(gpus) / 100 if gpus else None


def _shares_of(status: HostStatus) -> tuple[float | None, float | None]:
    # What a host read before it went silent says nothing about now.
    return busy_shares(status.readings) if status.state is LinkState.ONLINE else (None, None)


class HostList(QAbstractListModel):
    """Rows are ``HostRow`` records. Thread: UI."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._all: dict[str, HostRow] = {}
        self._shown: list[str] = []
        self._place: dict[str, int] = {}
        self._words: list[str] = []
        self.set_hosts((), {})

    @property
    def total(self) -> int:
        """Number of hosts, whether shown or not."""
        return len(self._all)

    def set_hosts(self, records: tuple[HostRecord, ...], statuses: dict[str, HostStatus]) -> None:
        """Take the hosts there are; what was read of them stays."""
        before = self._all
        local = before.get(LOCAL_HOST) or HostRow(
            name=LOCAL_HOST,
            title=THIS_COMPUTER,
            detail="",
            status=HostStatus(name=LOCAL_HOST, state=LinkState.ONLINE),
        )
        rows = {LOCAL_HOST: local}
        for record in sorted(records, key=lambda record: natural_key(record.name)):
            status = statuses.get(record.name, HostStatus(name=record.name))
            cpu, gpu = _shares_of(status)
            rows[record.name] = HostRow(
                name=record.name,
                title=host_title(record.name),
                detail=address_text(record),
                status=status,
                cpu=cpu,
                gpu=gpu,
            )
        self._all = rows
        self._filter()

    def set_filter(self, text: str) -> None:
        """Show only hosts whose name, address or state contains every word."""
        self._words = text.lower().split()
        self._filter()

    def set_status(self, status: HostStatus) -> None:
        """Take how a host stands now."""
        row = self._all.get(status.name)
        if row is None:
            return
        cpu, gpu = _shares_of(status)
        self._put(HostRow(name=row.name, title=row.title, detail=row.detail, status=status, cpu=cpu, gpu=gpu))

    def set_sample(self, sample: TelemetrySample) -> None:
        """Take this computer's reading."""
        row = self._all[LOCAL_HOST]
        cpu, gpu = busy_shares(sample.values)
        self._put(HostRow(name=row.name, title=row.title, detail=row.detail, status=row.status, cpu=cpu, gpu=gpu))

    def row_of(self, name: str) -> int | None:
        """Return where a host stands in the list; None when it is not shown."""
        return self._place.get(name)

    def host_at(self, row: int) -> str | None:
        """Return the host of a row."""
        return self._shown[row] if 0 <= row < len(self._shown) else None

    def rowCount(self, parent: AnyIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Return the number of hosts shown."""
        return 0 if parent.isValid() else len(self._shown)

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a host's record, name, or words for screen readers and tooltips."""
        name = self.host_at(index.row()) if index.isValid() else None
        if name is None:
            return None
        row = self._all[name]
        if role == HOST_ROLE:
            return row
        if role == Qt.ItemDataRole.DisplayRole:
            return row.title
        look = link_look(row.status)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{row.title}, {look.word}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(part for part in (row.detail, look.word, row.status.message) if part)
        return None

    def _put(self, row: HostRow) -> None:
        if self._all[row.name] == row:
            return
        self._all[row.name] = row
        place = self._place.get(row.name)
        if place is not None:
            self.dataChanged.emit(self.index(place), self.index(place))

    def _filter(self) -> None:
        shown = [name for name, row in self._all.items() if self._matches(row)]
        if shown == self._shown:
            if shown:
                self.dataChanged.emit(self.index(0), self.index(len(shown) - 1))
            return
        self.beginResetModel()
        self._shown = shown
        self._place = {name: n for n, name in enumerate(shown)}
        self.endResetModel()

    def _matches(self, row: HostRow) -> bool:
        text = f"{row.title} {row.detail} {link_look(row.status).word}".lower()
        return all(word in text for word in self._words)
