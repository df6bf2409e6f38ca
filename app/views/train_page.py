"""The Train page: the wizard for a new run, with specs to import by button or by dropping a file on it."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QFileDialog, QPushButton, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import Route
from app.controllers.train_controller import Prefill, TrainController
from app.views.icons import icon
from app.views.page import Page
from app.views.wizards.new_run import NewRunWizard
from core.contracts.ids import RunId


class TrainPage(Page):
    """Hosts the wizard. Opened with a kind, values, a spec's text or a run to clone."""

    title = "Train"
    icon_name = "train"
    subtitle = "Train, compress or measure a model: choose, fill in, launch."

    def __init__(self, controller: TrainController, fleet: FleetController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self.setAcceptDrops(True)
        self.wizard = NewRunWizard(controller, fleet)
        self.body.addWidget(self.wizard, 1)
        opener = QPushButton("Open spec…")
        opener.setObjectName("wizard_import")
        opener.setIcon(icon("import"))
        opener.setToolTip("Fill the form from a spec file (.toml); dropping one here does the same.")
        opener.clicked.connect(self._on_import)
        self.add_action(opener)
        controller.launched.connect(self._on_launched)
        controller.start()

    def open(self, route: Route) -> None:
        """Prefill the wizard as the route asks."""
        if route.run_id is not None:
            self._controller.clone(route.run_id, route.start_from)
        elif route.toml is not None:
            self._controller.open_toml(route.toml)
        elif route.kind is not None:
            self.wizard.prefill(Prefill(kind=route.kind, values=route.values or {}))
        elif route.group is not None:
            self.wizard.show_group(route.group)

    def _on_import(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Open a spec", "", "Specs (*.toml)")
        if chosen:
            self._controller.open_file(Path(chosen))

    def _on_launched(self, run_id: RunId) -> None:
        self.wizard.start_over()
        self._controller.open_run(run_id)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take one local .toml file."""
        urls = event.mimeData().urls()
        if len(urls) == 1 and urls[0].isLocalFile() and urls[0].toLocalFile().endswith(".toml"):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Fill the form from the dropped file."""
        self._controller.open_file(Path(event.mimeData().urls()[0].toLocalFile()))
        event.acceptProposedAction()
