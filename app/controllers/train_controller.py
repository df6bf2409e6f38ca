"""The wizard's hands: kinds of run, review of form values, launch, and specs from examples, files and earlier runs.

Every call runs in the background; of several reviews only the newest is answered. Knows no widget, so that the tour
without a display drives it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.controllers.notices import notify
from app.controllers.ops import Op
from app.controllers.routes import HOSTS, Route
from app.controllers.services import Services
from app.controllers.tasks import Task
from app.viewmodels.where import Where, where_of
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.forms import FormValue, RunKindInfo, SpecReview
from core.contracts.ids import RunId
from core.contracts.notices import Notice, Severity

_MAX_SPEC_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """Values to fill a form with, and where they are from, in words."""

    kind: str
    values: dict[str, FormValue] = field(default_factory=dict[str, FormValue])
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """The review of the values that were asked about last."""

    kind: str
    review: SpecReview


class TrainController(QObject):
    """Prepares and launches runs. Thread: UI.

    Signals:
        kinds_loaded: Tuple of ``RunKindInfo``.
        reviewed: A ``Reviewed``.
        previewed: A ``Reviewed`` of values that are still being filled in.
        prefilled: A ``Prefill``.
        launched: The ``RunId``.
        failed: A ``Notice``: what was asked for last could not be done.
        busy_changed: True while a launch is under way.
        launching: The ``Task`` of a launch elsewhere, which may take a while.
    """

    kinds_loaded = Signal(object)
    reviewed = Signal(object)
    previewed = Signal(object)
    prefilled = Signal(object)
    launched = Signal(object)
    failed = Signal(object)
    busy_changed = Signal(bool)
    launching = Signal(object)

    def __init__(self, services: Services, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self._kinds: tuple[RunKindInfo, ...] = ()
        self._review: Op[SpecReview] | None = None
        self._preview: Op[SpecReview] | None = None
        self._launch: Task | None = None

    @property
    def kinds(self) -> tuple[RunKindInfo, ...]:
        """The kinds of run, empty until they are loaded."""
        return self._kinds

    def start(self) -> None:
        """Load the kinds of run, now or as soon as the workspace is open."""
        if self._services.is_open:
            self.load_kinds()
        else:
            self._services.opened.connect(self._on_opened)

    def open_run(self, run_id: RunId) -> None:
        """Go to a run's page."""
        self._services.router.open_run(run_id)

    def open_hosts(self) -> None:
        """Go to the Hosts page."""
        self._services.router.go(Route(page=HOSTS))

    def load_kinds(self) -> None:
        """Find out what kinds of run there are."""
        Op(self._services.workspace.kinds).succeeded(self._on_kinds).failed(self._on_failed).start()

    def review(self, kind: str, values: Mapping[str, FormValue]) -> None:
        """Check form values; answers with ``reviewed``."""
        if self._review is not None:
            self._review.cancel()
        workspace, asked = self._services.workspace, dict(values)
        self._review = (
            Op(lambda: workspace.review(kind, asked))
            .succeeded(lambda review: self.reviewed.emit(Reviewed(kind=kind, review=review)))
            .failed(self._on_failed)
            .start()
        )

    def preview(self, kind: str, values: Mapping[str, FormValue]) -> None:
        """Look at values that are still being filled in; answers with ``previewed``, for the newest call only."""
        if self._preview is not None:
            self._preview.cancel()
        workspace, asked = self._services.workspace, dict(values)
        self._preview = (
            Op(lambda: workspace.review(kind, asked))
            .succeeded(lambda review: self.previewed.emit(Reviewed(kind=kind, review=review)))
            .failed(self._on_failed)
            .start()
        )

    def launch(self, kind: str, values: Mapping[str, FormValue]) -> None:
        """Launch a run; answers with ``launched`` or ``failed``. A second call while one is under way does nothing."""
        if self._launch is not None:
            return
        workspace, asked = self._services.workspace, dict(values)
        self.busy_changed.emit(True)
        task = Task("Launching", lambda watcher: workspace.launch(kind, asked, watcher=watcher), self)
        task.succeeded.connect(self._on_launched)
        task.failed.connect(self._on_failed)
        task.ended.connect(self._on_launch_done)
        self._launch = task
        task.start()
        if where_of(asked) is not Where.LOCAL:
            self.launching.emit(task)

    def open_example(self, name: str) -> None:
        """Fill the form from a shipped example."""
        workspace = self._services.workspace
        self._prefill(lambda: workspace.example(name), f"the example {Path(name).stem}")

    def open_toml(self, text: str, source: str = "a spec") -> None:
        """Fill the form from the text of a spec."""
        self._prefill(lambda: text, source)

    def open_file(self, path: Path) -> None:
        """Fill the form from a spec file."""
        self._prefill(lambda: _read_spec_text(path), path.name, folder=path.absolute().parent)

    def clone(self, run_id: RunId, start_from: str | None = None) -> None:
        """Fill the form from an earlier run; with ``start_from`` it builds on that run and starts from its checkpoint."""
        workspace = self._services.workspace
        changed: dict[str, FormValue] = {}
        source = f"the run {run_id}"
        if start_from is not None:
            changed = {"checkpoints.start_from": start_from, "parent": run_id}
            source = f"{source}, to start from {Path(start_from).name}"
        self._prefill(lambda: workspace.detail(run_id).spec_toml, source, changed=changed)

    def save_toml(self, text: str, path: Path) -> None:
        """Write a spec as a file."""
        Op(lambda: _write_spec_text(path, text)).succeeded(
            lambda _: notify(Severity.SUCCESS, f"Saved {path.name}.", f"Run it with: pilothouse run {path.name}")
        ).start()

    def _prefill(
        self,
        text_of: Callable[[], str],
        source: str,
        folder: Path | None = None,
        changed: Mapping[str, FormValue] | None = None,
    ) -> None:
        workspace = self._services.workspace

        def parse() -> Prefill:
            kind, values = workspace.values_of(text_of(), folder)
            return Prefill(kind=kind, values={**values, **(changed or {})}, source=source)

        Op(parse).succeeded(self.prefilled.emit).failed(self._on_failed).start()

    def _on_opened(self, _: object) -> None:
        self.load_kinds()

    def _on_kinds(self, kinds: tuple[RunKindInfo, ...]) -> None:
        self._kinds = kinds
        self.kinds_loaded.emit(kinds)

    def _on_launched(self, run_id: RunId) -> None:
        self._services.note_runs_changed()
        self.launched.emit(run_id)

    def _on_launch_done(self) -> None:
        if self._launch is not None:
            self._launch.deleteLater()
        self._launch = None
        self.busy_changed.emit(False)

    def _on_failed(self, notice: Notice) -> None:
        self.failed.emit(notice)


def _read_spec_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise UserError(f"{path.name} is too large to be a spec.", "Choose a .toml file that Pilothouse wrote.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not a text file.", "Choose a .toml file.") from error
    except OSError as error:
        raise EnvironmentProblem(f"{path.name} could not be read: {error.strerror}.", "Check the path.") from error


def _write_spec_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            f"{path.name} could not be written: {error.strerror}.", f"Check that {path.parent} may be written to."
        ) from error
