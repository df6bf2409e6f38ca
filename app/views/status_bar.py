"""The status bar: what goes on, and live processor, memory, GPU and network of this host."""

from __future__ import annotations

from PySide6.QtCore import QSize, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from app.viewmodels.host_readings import gpu_numbers, memory_use, rate_text
from app.viewmodels.reading_history import ReadingHistory, TelemetrySample
from app.viewmodels.wording import size_text
from app.views.icons import icon_pixmap
from app.views.theme import SPACE, set_kind, set_role, set_surface, theme_host
from app.views.widgets.meter import FillBar
from app.views.widgets.sparkline import Sparkline

_HEIGHT = 30
_SPARK_SECONDS = 60


class _Field(QWidget):
    """An icon, a bar or small curve, and a value."""

    def __init__(self, icon_name: str, tip: str, gauge: QWidget | None, width: int) -> None:
        super().__init__()
        self._icon_name = icon_name
        self._picture = QLabel()
        self._value = QLabel("—")
        set_kind(self._value, "caption")
        self._value.setMinimumWidth(width)
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACE.xs + 2)
        row.addWidget(self._picture)
        if gauge is not None:
            row.addWidget(gauge)
        row.addWidget(self._value)
        theme_host().changed.connect(self._draw)
        self._draw()

    def set_value(self, text: str) -> None:
        self._value.setText(text)
        self.setAccessibleDescription(text)

    def _draw(self) -> None:
        self._picture.setPixmap(icon_pixmap(self._icon_name, 16, "text_faint", self.devicePixelRatioF()))


class StatusBar(QWidget):
    """The bar at the foot of the window.

    Signals:
        hosts_wanted: The readings were pressed: show the Hosts page.
    """

    hosts_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        set_surface(self, "bar")
        self.setFixedHeight(_HEIGHT)
        self._message = QLabel("Starting")
        set_kind(self._message, "caption")
        self._spark = Sparkline(bounds=(0, 100), size=QSize(48, 20))
        self._spark.setFixedSize(48, 20)
        self._memory_bar = FillBar(width=48)
        self._gpu_bar = FillBar(warns=False, width=48)
        self._cpu = _Field("cpu", "Processor of this computer", self._spark, 34)
        self._memory = _Field("memory", "Memory of this computer", self._memory_bar, 116)
        self._gpu = _Field("gpu", "Busiest GPU of this computer", self._gpu_bar, 110)
        self._network = _Field("network", "Network of this computer, received and sent", None, 150)
        self._gpu.hide()
        host = QPushButton("This computer")
        set_role(host, "ghost")
        host.setObjectName("status_host")
        host.setProperty("compact", True)
        host.setToolTip("Show the hardware and its live readings")
        host.clicked.connect(self.hosts_wanted)
        row = QHBoxLayout(self)
        row.setContentsMargins(SPACE.m, 0, SPACE.m, 0)
        row.setSpacing(SPACE.m)
        row.addWidget(self._message, 1)
        for widget in (host, self._cpu, self._memory, self._gpu, self._network):
            row.addWidget(widget)

    def set_message(self, text: str) -> None:
        """Say what goes on."""
        self._message.setText(text)

    def message(self) -> str:
        """Return what is said."""
        return self._message.text()

    def show_sample(self, sample: TelemetrySample, history: ReadingHistory) -> None:
        """Show a reading."""
        busy = sample.get("cpu.percent")
        self._cpu.set_value("—" if busy is None else f"{busy:.0f} %")
        self._spark.set_values(history.recent("cpu.percent", _SPARK_SECONDS))
        used, total = memory_use(sample)
        if used is not None and total:
            self._memory.set_value(f"{size_text(used)} of {size_text(total)}")
            self._memory_bar.set_share(used / total)
        received, sent = rate_text(sample.get("net.rx_bytes_per_s")), rate_text(sample.get("net.tx_bytes_per_s"))
        self._network.set_value(f"{received} · {sent}")
        self._show_gpus(sample)

    def _show_gpus(self, sample: TelemetrySample) -> None:
        loads = {number: sample.get(f"gpu.{number}.utilization_percent") for number in gpu_numbers(sample)}
        known = {number: load for number, load in loads.items() if load is not None}
        self._gpu.setVisible(bool(known))
        if known:
            busiest = max(known, key=lambda number: known[number])
            memory = sample.get(f"gpu.{busiest}.memory_used_bytes")
            self._gpu.set_value(f"{known[busiest]:.0f} %" + ("" if memory is None else f" · {size_text(memory)}"))
            self._gpu_bar.set_share(known[busiest] / 100)
