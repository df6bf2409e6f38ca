"""The quick start without a display: drives the real window off screen, as a user would, and shows the way in the terminal.

It goes through the pages' own controllers, keeps a picture of each page it passes in ``<home>/screenshots``, prints the
result table and the report's path, and ends the program: with status 0 on success, 1 on failure, 130 when interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer
from PySide6.QtWidgets import QApplication

from app.controllers.ops import Op
from app.controllers.routes import HOME, HOSTS, RUNS, SETTINGS, TRAIN, Route
from app.controllers.train_controller import Prefill, TrainController
from app.viewmodels.wording import span_text
from core.cli.output import table
from core.cli.progress import ProgressLine
from core.contracts.events import Cell
from core.contracts.ids import RunId
from core.contracts.notices import Notice
from core.contracts.runs import RunDetail, RunUpdate, TableRecord
from core.contracts.states import RunState

if TYPE_CHECKING:
    from app.controllers.services import Services
    from app.views.shell import Shell

EXAMPLE = "quickstart.toml"
SETTLE_MS = 1200
INTERRUPTED = 130


class OffscreenTour(QObject):
    """Walks through the window. UI thread.

    Attributes:
        status: Exit status of the process.
    """

    def __init__(self, services: Services, shell: Shell, say: Callable[[str], None]) -> None:
        super().__init__(shell)
        self.status = INTERRUPTED
        self._services = services
        self._shell = shell
        self._say = say
        self._train = TrainController(services, self)
        self._folder = services.home_path / "screenshots"
        self._run_id: RunId | None = None
        self._line = ProgressLine()
        self._has_ended = False
        services.opened.connect(self._on_opened)
        services.open_failed.connect(self._fail)
        services.run_updated.connect(self._on_run_updated)
        self._train.prefilled.connect(self._on_prefilled)
        self._train.launched.connect(self._on_launched)
        self._train.failed.connect(self._fail)

    def _on_opened(self) -> None:
        self._say("No display was found: running the quick start off screen. Set DISPLAY for the window itself.")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._after_pause(lambda: self._visit((HOME, TRAIN), lambda: self._train.open_example(EXAMPLE)))

    def _visit(self, keys: tuple[str, ...], then: Callable[[], object]) -> None:
        """Show pages one after the other, keep a picture of each, then go on."""
        if not keys:
            then()
            return
        self._services.router.go(Route(page=keys[0]))
        self._after_pause(lambda: self._picture_and_go_on(keys, then))

    def _picture_and_go_on(self, keys: tuple[str, ...], then: Callable[[], object]) -> None:
        self._picture(keys[0])
        self._visit(keys[1:], then)

    def _after_pause(self, call: Callable[[], object]) -> None:
        QTimer.singleShot(SETTLE_MS, self, call)

    def _picture(self, name: str) -> None:
        self._shell.grab().save(str(self._folder / f"{name}.png"))

    def _on_prefilled(self, prefill: Prefill) -> None:
        self._train.launch(prefill.kind, prefill.values)

    def _on_launched(self, run_id: RunId) -> None:
        self._run_id = run_id
        self._services.note_runs_changed()
        self._services.router.open_run(run_id)

    def _on_run_updated(self, update: RunUpdate) -> None:
        summary = update.summary
        if summary.run_id != self._run_id or self._has_ended:
            return
        self._line.show(summary)
        if summary.state.is_terminal:
            self._has_ended = True
            self._line.__exit__(None, None, None)
            self._after_pause(self._show_result)

    def _show_result(self) -> None:
        self._picture("run")
        self._visit((RUNS, HOSTS, SETTINGS, HOME), self._read_result)

    def _read_result(self) -> None:
        run_id, workspace = self._run_id, self._services.workspace
        if run_id is not None:
            Op(lambda: workspace.detail(run_id)).succeeded(self._print_result).failed(self._fail).start()

    def _print_result(self, detail: RunDetail) -> None:
        summary = detail.summary
        if summary.state is not RunState.SUCCEEDED:
            self._say(f"The quick start {summary.state.value}: {summary.message} {summary.hint}".rstrip())
            self._say(f"Its log: {Path(summary.run_dir) / 'stdout.local.log'}")
            self._end(1)
            return
        took = "" if summary.duration_s is None else f" in {span_text(summary.duration_s)}"
        self._say(f"The quick start finished{took}.\n")
        for record in detail.tables:
            self._say(table_text(record) + "\n")
        for artifact in detail.artifacts:
            if artifact.kind == "report":
                self._say(f"Report:      {artifact.path}")
        self._say(f"Screenshots: {self._folder}")
        self._end(0)

    def _fail(self, notice: Notice) -> None:
        self._say(f"{notice.message} {notice.hint}".rstrip())
        self._end(1)

    def _end(self, status: int) -> None:
        self.status = status
        QApplication.quit()


def table_text(record: TableRecord) -> str:
    """Return a result table for the terminal."""
    rows = [tuple(_cell_text(cell) for cell in row) for row in record.rows]
    return table(tuple(record.columns), rows)


def _cell_text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:,.4f}".rstrip("0").rstrip(".")
    return "" if cell is None else str(cell)
