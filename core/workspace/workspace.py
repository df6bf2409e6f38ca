"""The facade that window, command line and pipelines share: everything Pilothouse does with one home folder.

All methods are thread-safe and may block on files and SQLite: never call them on the UI thread.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, FieldProblem, InvalidSpec, UserError
from core.contracts.forms import FormValue, RunKindInfo, SpecReview
from core.contracts.ids import RunId, is_run_id
from core.contracts.notices import Notice, Severity
from core.contracts.runs import Curve, LogChunk, RunDetail, RunPage, RunQuery, RunSummary
from core.contracts.settings import Settings
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.contracts.telemetry import HardwareReport, Sampler
from core.fleet.fleet import Fleet
from core.history.history import History
from core.jobs.launcher import Launcher
from core.plugins.decode import decode_spec, encode_spec, parse_toml, read_spec
from core.plugins.forms import form_of, mapping_of, values_of
from core.plugins.registry import registry
from core.runlog.layout import RunLayout
from core.settings import store
from core.settings.home import Home, default_home
from core.settings.resources import examples_dir
from core.workspace.follower import POLL_S, Follower, OnUpdate
from core.workspace.logs import read_log
from core.workspace.synchronize import Synchronizer

_log = logging.getLogger("pilothouse.workspace")


class Workspace:
    """One open home.

    Attributes:
        home: Its paths.
        notices: What opening it had to say (a set-aside database, damaged settings, broken plug-ins).
        fleet: Its hosts; connects to none before it is asked to.
    """

    def __init__(self, home: Home, history: History, settings: Settings, notices: tuple[Notice, ...]) -> None:
        self.home = home
        self.notices = notices
        self._history = history
        self._settings = settings
        self._launcher = Launcher(home)
        self._synchronizer = Synchronizer(home, history, self._launcher)
        self.fleet = Fleet(home)

    @classmethod
    def open(cls, home_path: Path | None = None) -> Workspace:
        """Open a home, making it when it is new.

        Raises:
            EnvironmentProblem: It cannot be used, or belongs to a newer Pilothouse; nothing was changed.
        """
        home = Home(home_path or default_home())
        home.prepare()
        settings, damaged = store.load_settings(home.settings_file)
        history = History.open(home.database)
        found = [notice for notice in (damaged, history.notice) if notice is not None]
        found += [
            Notice(severity=Severity.WARNING, message=f"The plug-in {kind.module} cannot be used: {kind.reason}.")
            for kind in registry().broken
        ]
        return cls(home, history, settings, tuple(found))

    def close(self) -> None:
        """Let go of the index and of all connections; runs go on."""
        self.fleet.close()
        self._history.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring the index up to date with all run directories."""
        self._synchronizer.all()

    def runs(self, query: RunQuery) -> RunPage:
        """Return a page of the run table."""
        return self._history.runs(query)

    def summary(self, run_id: RunId) -> RunSummary:
        """Return one run's summary; UserError when there is none."""
        return self._history.summary(run_id)

    def detail(self, run_id: RunId) -> RunDetail:
        """Return one run with artifacts, checkpoints, tables, markers and lineage."""
        return self._history.detail(run_id)

    def find(self, text: str) -> RunId:
        """Return the one run whose id is, begins or ends with a text.

        Raises:
            UserError: None or several match.
        """
        matches = self._history.match_ids(text)
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise UserError(f"There is no run {text!r}.", "List the runs to see their ids.")
        raise UserError(f"{len(matches)} runs match {text!r}.", f"Give more of the id, such as {matches[0]}.")

    def curve(  # noqa: PLR0913 - a range is given by steps or by time
        self,
        run_id: RunId,
        key: str,
        *,
        first_step: int | None = None,
        last_step: int | None = None,
        first_ts: float | None = None,
        last_ts: float | None = None,
        points: int = 2000,
    ) -> Curve:
        """Return one curve within a range of steps or of Unix seconds, decimated to about ``points`` extremes."""
        if first_ts is not None or last_ts is not None:
            return self._history.curve(run_id, key, first=first_ts, last=last_ts, points=points, by="ts")
        return self._history.curve(run_id, key, first=first_step, last=last_step, points=points, by="step")

    def log(self, run_id: RunId, start: int, limit: int = 256_000) -> LogChunk:
        """Return a piece of a run's output; a negative start counts from the end."""
        return read_log(RunLayout(self.home.run_dir(run_id)).stdout(), start, limit)

    def follow(self, on_update: OnUpdate) -> Follower:
        """Start one thread that follows all live runs; ``on_update`` is called on it."""
        return Follower(self._synchronizer, self._history, on_update)

    # -- specs -----------------------------------------------------------------------------------------------------

    def kinds(self) -> tuple[RunKindInfo, ...]:
        """Return every kind of run with its form."""
        return tuple(form_of(kind) for kind in registry().kinds.values())

    def example(self, name: str) -> str:
        """Return the TOML text of a shipped example, paths made absolute."""
        return encode_spec(read_spec(examples_dir() / name))

    def values_of(self, toml_text: str, folder: Path | None = None) -> tuple[str, dict[str, FormValue]]:
        """Return the kind and the form values of a spec's text; InvalidSpec lists its problems.

        Relative paths in it are taken from ``folder``, that of the text's file; None leaves them.
        """
        spec = decode_spec(parse_toml(toml_text), folder=folder)
        return str(spec.__struct_config__.tag), values_of(spec)

    def read_spec(self, path: Path) -> RunSpec:
        """Return the spec in a file, or of a shipped example by its file name; InvalidSpec lists its problems."""
        shipped = examples_dir() / path.name
        return read_spec(shipped if not path.exists() and path == Path(path.name) and shipped.exists() else path)

    def review(self, kind: str, values: Mapping[str, FormValue]) -> SpecReview:
        """Return all problems of form values at once, or the spec as TOML with the command that equals it.

        Relative paths are taken from the working directory, and ``~`` stands for the user's folder.
        """
        try:
            spec = decode_spec(mapping_of(kind, values), folder=Path())
        except InvalidSpec as error:
            return SpecReview(problems=error.problems, warnings=(), toml="", command="")
        problems = self.check(spec)
        return SpecReview(
            problems=problems, warnings=(), toml=encode_spec(spec), command="pilothouse run spec.toml --follow"
        )

    def check(self, spec: RunSpec) -> tuple[FieldProblem, ...]:
        """Return what stands against a launch outside the spec itself: missing files, no space."""
        return registry().get(str(spec.__struct_config__.tag)).check(spec)

    # -- acts ------------------------------------------------------------------------------------------------------

    def launch(self, kind: str, values: Mapping[str, FormValue]) -> RunId:
        """Launch a run from form values; InvalidSpec lists every problem."""
        return self.launch_spec(decode_spec(mapping_of(kind, values), folder=Path()))

    def launch_spec(self, spec: RunSpec, *, parent: RunId | None = None, guardian: Path | None = None) -> RunId:
        """Launch a run.

        Args:
            spec: What to do.
            parent: The run it builds on; takes the place of the spec's own.
            guardian: Directory of the run that owns this one; when that ends, this one stops.

        Raises:
            InvalidSpec: Files it needs are missing.
            EnvironmentProblem: No space, no permission, or its supervisor cannot start.
        """
        problems = self.check(spec)
        if problems:
            raise InvalidSpec(problems)
        complete = msgspec.structs.replace(spec, parent=parent) if parent is not None else spec
        run_id = self._launcher.launch(complete, guardian=guardian)
        self._note(lambda: self._history.add(self.home.run_dir(run_id)))
        return run_id

    @staticmethod
    def _note(enter: Callable[[], object]) -> None:
        """Tell the index of an act that was carried out; where it cannot be told now, it finds out by itself later.

        The act must not be reported as failed: the user would do it twice.
        """
        try:
            enter()
        except EnvironmentProblem as error:
            _log.warning("The history could not be told at once: %s", error)

    def stop(self, run_id: RunId) -> None:
        """Ask a run to save and end; UserError when it already has."""
        self._launcher.stop(run_id)
        self._note(lambda: self._synchronizer.update(run_id))

    def resume(self, run_id: RunId, *, guardian: Path | None = None) -> None:
        """Start an ended run once more from its last checkpoint; UserError when it cannot be.

        ``guardian`` is as for ``launch_spec``.
        """
        self._synchronizer.drain(run_id)
        self._launcher.resume(run_id, guardian=guardian)
        self._note(lambda: self._history.reopen(run_id))

    def delete(self, run_ids: Iterable[RunId]) -> None:
        """Move ended runs to the bin; one whose directory is gone is taken off the index.

        Raises:
            UserError: One of them still goes on; none is moved.
        """
        wanted = list(run_ids)
        gone = [run_id for run_id in wanted if not self.home.run_dir(run_id).is_dir()]
        wanted = [run_id for run_id in wanted if run_id not in gone]
        for run_id in wanted:
            # The directory is asked too: a run that is being resumed is open there before the index says so.
            state, standing = self.summary(run_id).state, self._launcher.standing(run_id)
            if not state.is_terminal or standing.state is None or not standing.state.is_terminal:
                shown = standing.state or (RunState.QUEUED if state.is_terminal else state)
                raise UserError(f"The run {run_id} is {shown.value} and cannot be deleted.", "Stop it first.")
            if standing.leftovers:
                self._launcher.end_leftovers(run_id)
        for run_id in wanted:
            target = self.home.bin_dir / run_id
            if target.exists():
                shutil.rmtree(target, ignore_errors=True)
            self._move(self.home.run_dir(run_id), target)
            self._history.delete(run_id)
        if gone:
            self._history.purge(gone)

    def restore(self, run_ids: Iterable[RunId]) -> None:
        """Take runs back out of the bin; UserError when one is not there, or its place is taken."""
        for run_id in run_ids:
            source, target = self.home.bin_dir / run_id, self.home.run_dir(run_id)
            # Whatever is no run id could name any folder: "" is the bin itself, ".." the home.
            if not is_run_id(run_id) or not source.is_dir():
                raise UserError(f"The bin holds no run {run_id!r}.")
            if target.exists():
                raise UserError(f"There is a run {run_id!r} already.", f"The one in the bin stays in {str(source)!r}.")
            self._move(source, target)
            self._history.add(self.home.run_dir(run_id))
            self._synchronizer.drain(run_id)

    def binned(self) -> tuple[RunId, ...]:
        """Return the runs in the bin, oldest first."""
        return tuple(sorted(RunId(path.name) for path in self.home.bin_dir.iterdir() if is_run_id(path.name)))

    def purge(self, run_ids: Iterable[RunId]) -> int:
        """Remove runs from the bin for good; return the bytes that this freed.

        Raises:
            UserError: One of them is not in the bin; those before it are gone.
            EnvironmentProblem: Files cannot be removed.
        """
        freed = 0
        for run_id in run_ids:
            folder = self.home.bin_dir / run_id
            if not is_run_id(run_id) or not folder.is_dir():
                raise UserError(f"The bin holds no run {run_id!r}.", "Only deleted runs can be removed for good.")
            size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise EnvironmentProblem(
                    f"{str(folder)!r} cannot be removed: {error.strerror}.", "Check its permissions."
                ) from error
            freed += size
            if not self.home.run_dir(run_id).is_dir():
                self._history.purge([run_id])
        return freed

    @staticmethod
    def _move(source: Path, target: Path) -> None:
        try:
            source.rename(target)
        except OSError as error:
            raise EnvironmentProblem(
                f"{str(source)!r} cannot be moved: {error.strerror}.", "Check its permissions."
            ) from error

    def rebuild(self) -> int:
        """Make the index anew from the run directories; return how many runs there are."""
        return self._synchronizer.rebuild()

    def export(self, run_id: RunId, file_format: str, target: Path) -> Path:
        """Write a run's metrics as ``csv``, ``parquet`` or ``tensorboard``; return what was written."""
        return self._history.export(run_id, file_format, target)

    def wait(
        self,
        run_id: RunId,
        on_update: Callable[[RunSummary], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> RunSummary:
        """Follow a run until it has ended; a stop asked for is passed on to it once.

        Args:
            run_id: The run.
            on_update: Called with each new summary, on this thread.
            should_stop: Polled; when true the run is stopped and still waited for.
        """
        stopping = False
        seen: RunSummary | None = None
        while True:
            summary = self._updated(run_id)
            if on_update is not None and summary != seen:
                seen = summary
                on_update(summary)
            if summary.state.is_terminal:
                return summary
            if not stopping and should_stop is not None and should_stop():
                stopping = True
                with contextlib.suppress(UserError):  # it ended just now
                    self._launcher.stop(run_id)
            time.sleep(POLL_S)

    def _updated(self, run_id: RunId) -> RunSummary:
        try:
            self._synchronizer.update(run_id)
            return self.summary(run_id)
        except UserError:
            if not RunLayout(self.home.run_dir(run_id)).spec.exists():
                raise
        # Somebody makes the index anew just now, and this run's turn has not come.
        self._history.add(self.home.run_dir(run_id))
        self._synchronizer.drain(run_id)
        return self.summary(run_id)

    # -- machine and settings --------------------------------------------------------------------------------------

    def hardware(self) -> HardwareReport:
        """Return what this machine has."""
        from core.hardware.probe import probe

        return probe()

    def sampler(self) -> Sampler:
        """Return a fresh sampler of this machine; close it after use."""
        from core.hardware.sampler import HostSampler

        return HostSampler()

    @property
    def settings(self) -> Settings:
        """What the user set."""
        return self._settings

    def save_settings(self, settings: Settings) -> None:
        """Keep settings.

        Raises:
            EnvironmentProblem: They cannot be written; the old ones stay.
        """
        try:
            store.save_settings(self.home.settings_file, settings)
        except OSError as error:
            raise EnvironmentProblem(
                f"The settings cannot be saved: {error.strerror}.", "Check the home folder."
            ) from error
        self._settings = settings
