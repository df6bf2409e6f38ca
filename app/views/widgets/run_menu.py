"""What can be done to chosen runs, as a menu; the same on the table and on a run's page. Asks before it deletes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PySide6.QtCore import QPoint, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QFileDialog, QMenu, QMessageBox, QWidget

from app.controllers.routes import TRAIN, Route, Router
from app.controllers.run_actions import (
    EXPORT_FORMATS,
    RunActions,
    can_build_on,
    can_delete,
    can_give_up,
    can_pause,
    can_proceed,
    can_resume,
    can_stop,
)
from app.views.icons import icon
from core.contracts.forms import FormValue
from core.contracts.ids import RunId
from core.contracts.runs import RunSummary
from core.contracts.sweeps import SWEEP_KIND

_FORMAT_WORDS = {"csv": "CSV table…", "parquet": "Parquet table…", "tensorboard": "TensorBoard log…"}
_NEXT_KINDS = (
    ("compress.int8", "compress", "Make an INT8 model of it…"),
    ("infer.benchmark", "benchmark", "Benchmark its models…"),
)
"""What is usually done next with what a run made; the wizard's review says where a run has no model for it."""


class RunCommands:
    """The user's intents on runs: asks where a question is due, then tells the controller."""

    def __init__(self, owner: QWidget, actions: RunActions, router: Router) -> None:
        self._owner = owner
        self._actions = actions
        self._router = router

    def open(self, run: RunSummary) -> None:
        """Open a run's page."""
        self._router.open_run(run.run_id)

    def stop(self, runs: Sequence[RunSummary]) -> None:
        """Ask those that go on to stop."""
        self._actions.stop(_ids(run for run in runs if can_stop(run)))

    def resume(self, runs: Sequence[RunSummary]) -> None:
        """Start again those that can go on."""
        self._actions.resume(_ids(run for run in runs if can_resume(run)))

    def pause(self, runs: Sequence[RunSummary]) -> None:
        """Ask those that run to pause."""
        self._actions.pause(_ids(run for run in runs if can_pause(run)))

    def proceed(self, runs: Sequence[RunSummary]) -> None:
        """Let those that are paused go on."""
        self._actions.proceed(_ids(run for run in runs if can_proceed(run)))

    def give_up(self, runs: Sequence[RunSummary]) -> None:
        """Count those that do not answer any more as lost."""
        self._actions.give_up(_ids(run for run in runs if can_give_up(run)))

    def clone(self, run: RunSummary) -> None:
        """Open the wizard with a run's settings."""
        self._router.go(Route(page=TRAIN, run_id=run.run_id))

    def build_on(self, run: RunSummary, kind: str) -> None:
        """Open the wizard with a run of another kind that uses this one's artifacts."""
        self._router.go(Route(page=TRAIN, kind=kind, values={"parent": run.run_id}))

    def sweep_over(self, run: RunSummary) -> None:
        """Open the wizard with a sweep that varies a run's settings."""
        values: dict[str, FormValue] = {"base": run.run_id, "name": f"{run.name or run.run_id}: sweep"}
        self._router.go(Route(page=TRAIN, kind=SWEEP_KIND, values=values))

    def delete(self, runs: Sequence[RunSummary]) -> None:
        """Ask once, then move those that ended to the bin."""
        chosen = [run for run in runs if can_delete(run)]
        if chosen and self._confirms(chosen):
            self._actions.delete(_ids(chosen))

    def export(self, runs: Sequence[RunSummary], form: str) -> None:
        """Ask for a folder and write the curves there."""
        folder = QFileDialog.getExistingDirectory(self._owner, "Export into folder")
        if folder:
            self._actions.export(_ids(runs), form, Path(folder))

    def open_folder(self, run: RunSummary) -> None:
        """Show the run directory in the system's file browser."""
        open_path(Path(run.run_dir))

    def copy_id(self, runs: Sequence[RunSummary]) -> None:
        """Put the ids on the clipboard."""
        QGuiApplication.clipboard().setText("\n".join(run.run_id for run in runs))

    def _confirms(self, runs: Sequence[RunSummary]) -> bool:
        what = f"“{(runs[0].name or runs[0].run_id)[:80]}”" if len(runs) == 1 else f"{len(runs)} runs"
        box = QMessageBox(self._owner)
        box.setObjectName("confirm_delete")
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("Delete")
        box.setText(f"Move {what} to the bin?")
        box.setInformativeText("You can undo this. Files stay in the bin of the data folder.")
        yes = box.addButton("Move to bin", QMessageBox.ButtonRole.DestructiveRole)
        no = box.addButton("Keep", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(no)
        box.exec()
        return box.clickedButton() is yes


def open_path(path: Path) -> None:
    """Show a file or folder in the system's own program."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))


def popup_run_menu(owner: QWidget, commands: RunCommands, runs: Sequence[RunSummary], at: QPoint) -> QMenu:
    """Show the menu of chosen runs at a global position; it goes when it is closed."""
    menu = QMenu(owner)
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    fill_run_menu(menu, commands, runs, in_table=True)
    menu.popup(at)
    return menu


def fill_run_menu(menu: QMenu, commands: RunCommands, runs: Sequence[RunSummary], *, in_table: bool) -> None:
    """Put in what can be done to the chosen runs; what does not apply is greyed. Keys are named where the table has them."""
    menu.clear()
    for old in menu.findChildren(QMenu):
        old.deleteLater()
    one = runs[0] if len(runs) == 1 else None
    keys = (lambda text: f"\t{text}") if in_table else (lambda _: "")
    if one is not None and in_table:
        _add(menu, "open", f"Open{keys('Enter')}", lambda: commands.open(one))
    if in_table:
        _add(menu, "stop", "Stop", lambda: commands.stop(runs), enabled=any(can_stop(run) for run in runs))
        _add(menu, "pause", "Pause", lambda: commands.pause(runs), enabled=any(can_pause(run) for run in runs))
        _add(menu, "play", "Continue", lambda: commands.proceed(runs), enabled=any(can_proceed(run) for run in runs))
        _add(menu, "resume", "Resume", lambda: commands.resume(runs), enabled=any(can_resume(run) for run in runs))
    if one is not None and in_table:
        _add(menu, "clone", f"Clone into a new run{keys('Ctrl+D')}", lambda: commands.clone(one))
    if one is not None:
        _add_next(menu, commands, one)
    menu.addSeparator()
    export = menu.addMenu(icon("export"), "Export curves")
    for form in EXPORT_FORMATS:
        export.addAction(_FORMAT_WORDS[form], lambda form=form: commands.export(runs, form))
    if one is not None:
        _add(menu, "folder", "Open folder", lambda: commands.open_folder(one), enabled=bool(one.run_dir))
    _add(menu, "copy", f"Copy id{keys('Ctrl+C')}", lambda: commands.copy_id(runs))
    menu.addSeparator()
    if any(can_give_up(run) for run in runs):
        _add(menu, "stop", "Give up: its hosts do not answer", lambda: commands.give_up(runs))
    can_any = any(can_delete(run) for run in runs)
    _add(menu, "trash", f"Delete…{keys('Del')}", lambda: commands.delete(runs), enabled=can_any)


def _add_next(menu: QMenu, commands: RunCommands, run: RunSummary) -> None:
    """Put in what is usually done next with a run."""
    menu.addSeparator()
    if can_build_on(run):
        for kind, icon_name, words in _NEXT_KINDS:
            _add(menu, icon_name, words, lambda kind=kind: commands.build_on(run, kind))
    if run.kind.startswith("train."):
        _add(menu, "sweep", "Sweep over its settings…", lambda: commands.sweep_over(run))


def _add(menu: QMenu, icon_name: str, text: str, run: Callable[[], object], *, enabled: bool = True) -> None:
    action = menu.addAction(icon(icon_name), text)
    action.setEnabled(enabled)
    action.triggered.connect(lambda _=False: run())


def _ids(runs: Iterable[RunSummary]) -> tuple[RunId, ...]:
    return tuple(run.run_id for run in runs)
