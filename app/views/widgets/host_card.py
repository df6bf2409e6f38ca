"""This host at a glance for Home: a heat map of its cores, and meters of memory, disk space and each GPU."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QLabel, QPushButton, QWidget

from app.viewmodels.host_readings import core_percents, gpu_readings, host_readings
from app.viewmodels.reading_history import TelemetrySample
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.heat_map import HeatMap
from app.views.widgets.meter import Meter

_MAX_GPUS = 8


class HostCard(Card):
    """Shows how busy this host is.

    Signals:
        details_wanted: Show the Hosts page.
    """

    details_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("This computer", parent=parent)
        details = QPushButton("Details")
        set_role(details, "ghost")
        details.setProperty("compact", True)
        details.setAccessibleName("Details of this computer")
        details.clicked.connect(self.details_wanted)
        self.title_row.addWidget(details)
        self._caption = QLabel("Processor cores")
        set_kind(self._caption, "caption")
        self._cores = HeatMap("Core")
        self._meters: dict[str, Meter] = {}
        self.body.addWidget(self._caption)
        self.body.addWidget(self._cores)
        self.body.addSpacing(SPACE.xs)
        self._meter_at = self.body.count()
        self.body.addStretch(1)

    def show_sample(self, sample: TelemetrySample) -> None:
        """Show a reading."""
        percents = core_percents(sample)
        self._cores.set_percents(percents)
        busy = sample.get("cpu.percent")
        share = "" if busy is None else f", {busy:.0f} % busy"
        self._caption.setText(f"{len(percents)} processor cores{share}" if percents else "Processor")
        for reading in (*host_readings(sample), *gpu_readings(sample)[:_MAX_GPUS]):
            self._meter(reading.title).set_reading(reading.text, reading.share)

    def _meter(self, title: str) -> Meter:
        if title not in self._meters:
            self._meters[title] = Meter(title)
            self.body.insertWidget(self._meter_at + len(self._meters) - 1, self._meters[title])
        return self._meters[title]
