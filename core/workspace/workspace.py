"""The facade that window, command line and pipelines share: everything Pilothouse does with one home folder.

All methods are thread-safe and may block on files and SQLite: never call them on the UI thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, FieldProblem, InvalidSpec, UserError
from core.contracts.forms import FormValue, RunKindInfo, SpecReview
from core.contracts.hosts import Watcher
from core.contracts.ids import RunId
from core.contracts.nodes import RunNodes
from core.contracts.notices import Notice, Severity
from core.contracts.profiles import ProfileReport
from core.contracts.runs import Curve, LogChunk, RunDetail, RunPage, RunQuery, RunSummary
from core.contracts.settings import Settings
from core.contracts.specs import RunSpec
from core.contracts.sweeps import SweepReport
from core.contracts.telemetry import HardwareReport, Sampler
from core.fleet.fleet import Fleet
from core.fleet.on_hosts import attempt_all
from core.fleet.remote_runs import engine_of
from core.history.history import History
from core.jobs.launcher import Launcher
from core.plugins.decode import decode_spec, encode_spec, parse_toml, read_spec
from core.plugins.forms import form_of, mapping_of, values_of
from core.plugins.registry import registry
from core.runlog.layout import RunLayout
from core.runlog.placements import is_elsewhere, read_placement
from core.settings import store
from core.settings.home import Home, default_home
from core.settings.resources import examples_dir
from core.workspace.bin import RunBin
from core.workspace.estimates import estimate_of
from core.workspace.follower import POLL_S, Follower, OnUpdate
from core.workspace.logs import output_of, read_log
from core.workspace.profiles import Profiles
from core.workspace.retries import Retries
from core.workspace.sweeps import read_sweep
from core.workspace.synchronize import Synchronizer

_log = logging.getLogger("pilothouse.workspace")
_REACH_S = 15.0
"""How long to wait for what a host has written."""


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
        self._synchronizer = Synchronizer(home, history)
        self.fleet = Fleet(home)
        self._profiles = Profiles(home, self.fleet, self._launcher)
        self._bin = RunBin(home, history, self._synchronizer, self.fleet)
        self._hardware: HardwareReport | None = None

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

    def sync(self, *, reach_s: float = 0.0) -> None:
        """Bring the index up to date with all run directories.

        Args:
            reach_s: How long to wait, in seconds, for what open runs on other hosts have written; 0 takes what is here.
        """
        self._synchronizer.discover()
        if reach_s:
            elsewhere = [run_id for run_id in self._history.open_run_ids() if self._is_elsewhere(run_id)]
            attempt_all(lambda run_id: self.fleet.following.catch_up(run_id, reach_s), elsewhere)
        self._synchronizer.all()

    def refresh(self, run_id: RunId, reach_s: float = 8.0) -> None:
        """Take in what a run has written so far, waiting that long for the hosts of one that goes on elsewhere."""
        if self._is_elsewhere(run_id) and not self.summary(run_id).state.is_terminal:
            self.fleet.following.catch_up(run_id, reach_s)
        self._synchronizer.drain(run_id)

    def _is_elsewhere(self, run_id: RunId) -> bool:
        return is_elsewhere(read_placement(self.home.run_dir(run_id)))

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

    def log(self, run_id: RunId, start: int, limit: int = 256_000, node: str = "") -> LogChunk:
        """Return a piece of a run's output; a negative start counts from the end.

        Without ``node`` a run on several nodes gives their merged output, each line with its node before it.
        """
        return read_log(output_of(self.home.run_dir(run_id), node), start, limit)

    def nodes(self, run_id: RunId) -> RunNodes:
        """Return the nodes and ranks of a run as they stand here; asks no host."""
        from core.fleet.nodes import nodes_of

        return nodes_of(self.home.run_dir(run_id))

    def sweep(self, run_id: RunId) -> SweepReport:
        """Return a sweep as its worker last told; UserError when the run has told none."""
        return read_sweep(self.home.run_dir(run_id))

    def follow(self, on_update: OnUpdate) -> Follower:
        """Start one thread that follows all live runs, those on other hosts too; ``on_update`` is called on it."""
        retries = Retries(self.fleet, self.home.runs_dir, self.retry)
        return Follower(self._synchronizer, self._history, on_update, self.fleet.following, retries)

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
        return SpecReview(
            problems=self.check(spec),
            warnings=(),
            toml=encode_spec(spec),
            command="pilothouse run spec.toml --follow",
            estimate=estimate_of(registry().get(kind), spec, self._known_hardware),
        )

    def check(self, spec: RunSpec) -> tuple[FieldProblem, ...]:
        """Return what stands against a launch outside the spec itself: missing files, no space."""
        return registry().get(str(spec.__struct_config__.tag)).check(spec)

    # -- acts ------------------------------------------------------------------------------------------------------

    def launch(self, kind: str, values: Mapping[str, FormValue], *, watcher: Watcher | None = None) -> RunId:
        """Launch a run from form values, as ``launch_spec`` does; InvalidSpec lists every problem."""
        return self.launch_spec(decode_spec(mapping_of(kind, values), folder=Path()), watcher=watcher)

    def launch_spec(
        self,
        spec: RunSpec,
        *,
        parent: RunId | None = None,
        guardian: Path | None = None,
        watcher: Watcher | None = None,
    ) -> RunId:
        """Launch a run, on this machine or where its spec says.

        Args:
            spec: What to do.
            parent: The run it builds on; takes the place of the spec's own.
            guardian: Directory of the run that owns this one; when that ends, this one stops. On this machine only.
            watcher: Sees the progress of a launch elsewhere, and may cancel it.

        Raises:
            InvalidSpec: Files it needs are missing.
            UserError: Where it is to go is not fit for it.
            EnvironmentProblem: No space, no permission, or its supervisor cannot start; a host does not answer.
            Cancelled: The watcher cancelled; nothing is left behind.
        """
        complete = msgspec.structs.replace(spec, parent=parent) if parent is not None else spec
        if engine_of(spec.launch) is not None:
            run_id = self.fleet.runs.launch(complete, watcher)
            self._note(lambda: self._history.add(self.home.run_dir(run_id)))
            return run_id
        problems = self.check(spec)
        if problems:
            raise InvalidSpec(problems)
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

    def preview(self, spec: RunSpec) -> str:
        """Return what a launch would do: the ``sbatch`` script, the manifest, or the plan for each host; starts nothing."""
        return self.fleet.preview(spec)

    def stop(self, run_id: RunId) -> None:
        """Ask a run to save and end; UserError when it already has, EnvironmentProblem when no host of it answers."""
        if self._is_elsewhere(run_id):
            self.fleet.runs.stop(run_id)
        else:
            self._launcher.stop(run_id)
        self._note(lambda: self._synchronizer.update(run_id))

    def give_up(self, run_id: RunId) -> None:
        """Count a run as lost whose hosts do not answer any more; UserError when they do, or it has ended."""
        if not self._is_elsewhere(run_id):
            raise UserError(f"The run {run_id} is on this machine.", "Stop it instead.")
        self.fleet.runs.give_up(run_id)
        self._note(lambda: self._synchronizer.update(run_id))

    def pause(self, run_id: RunId) -> None:
        """Ask a run to save, end its work for now and free its devices; raises as ``stop``."""
        if self._is_elsewhere(run_id):
            self.fleet.runs.pause(run_id)
        else:
            self._launcher.pause(run_id)

    def proceed(self, run_id: RunId) -> None:
        """Let a paused run go on; raises as ``stop``."""
        if self._is_elsewhere(run_id):
            self.fleet.runs.proceed(run_id)
        else:
            self._launcher.proceed(run_id)

    def request_profile(self, run_id: RunId, steps: int = 3, ranks: tuple[int, ...] = (0,)) -> None:
        """Ask ranks of a training that goes on for a profile of their next steps; see ``Profiles.request``."""
        self._profiles.request(run_id, steps, ranks)

    def profile(self, run_id: RunId, rank: int | None = None) -> ProfileReport | None:
        """Return the newest profile of a run, or of one of its ranks; None without one. See ``Profiles.newest``."""
        return self._profiles.newest(run_id, self.detail(run_id).artifacts, rank)

    def resume(self, run_id: RunId, *, guardian: Path | None = None) -> None:
        """Start an ended run once more from its last checkpoint; UserError when it cannot be.

        ``guardian`` is as for ``launch_spec``. A run elsewhere goes on where it was; see ``retry`` for other hosts.
        """
        if self._is_elsewhere(run_id):
            self.retry(run_id)
            return
        self._synchronizer.drain(run_id)
        self._launcher.resume(run_id, guardian=guardian)
        self._note(lambda: self._history.reopen(run_id))

    def retry(self, run_id: RunId, hosts: tuple[str, ...] | None = None, *, watcher: Watcher | None = None) -> None:
        """Resume an ended run, on other hosts where they are given: its newest checkpoint is brought to their first.

        Raises:
            UserError: It goes on, has succeeded, or is on this machine alone and other hosts are given.
            EnvironmentProblem: A host does not answer, or the checkpoint is out of reach.
        """
        if not self._is_elsewhere(run_id):
            if hosts is not None:
                raise UserError("A run of this machine is not moved to other hosts.", "Clone it, and choose hosts.")
            self.resume(run_id)
            return
        self.fleet.following.catch_up(run_id, _REACH_S)
        self._synchronizer.drain(run_id)
        self.fleet.runs.resume(run_id, hosts, watcher)
        self._note(lambda: self._history.add(self.home.run_dir(run_id)))
        self._note(lambda: self._history.reopen(run_id))

    def fetch(self, run_id: RunId, what: str, watcher: Watcher) -> None:
        """Bring a run's ``checkpoints`` or ``artifacts`` here; nothing to do for a run on this machine.

        Raises:
            UserError: There is nothing of that.
            EnvironmentProblem: The host does not answer, or there is no space here.
            Cancelled: The watcher cancelled; what is here is gone on with the next time.
        """
        if not self._is_elsewhere(run_id):
            return
        from core.fleet.fetch import fetch

        fetch(self.fleet.pool, self.home.run_dir(run_id), what, watcher)

    def delete(self, run_ids: Iterable[RunId]) -> None:
        """Move ended runs to the bin; one whose directory is gone is taken off the index.

        What a run elsewhere left there stays until it is purged, so that it can be taken back whole.

        Raises:
            UserError: One of them still goes on; none is moved.
            EnvironmentProblem: A host on which something of a run may still live does not answer.
        """
        self._bin.delete(run_ids)

    def restore(self, run_ids: Iterable[RunId]) -> None:
        """Take runs back out of the bin; UserError when one is not there, or its place is taken."""
        self._bin.restore(run_ids)

    def binned(self) -> tuple[RunId, ...]:
        """Return the runs in the bin, oldest first."""
        return self._bin.runs()

    def purge(self, run_ids: Iterable[RunId]) -> int:
        """Remove runs from the bin for good, on their hosts too; return the bytes that this freed here.

        Raises:
            UserError: One of them is not in the bin; those before it are gone.
            EnvironmentProblem: Files cannot be removed; or all is removed here, but hosts that still have the run's
                folder do not answer: they are named.
        """
        return self._bin.purge(run_ids)

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
        self.fleet.following.follow(run_id)
        while True:
            summary = self.updated(run_id)
            if on_update is not None and summary != seen:
                seen = summary
                on_update(summary)
            if summary.state.is_terminal:
                return self._settled(run_id, summary)
            if not stopping and should_stop is not None and should_stop():
                stopping = True
                with contextlib.suppress(UserError):  # it ended just now
                    self.stop(run_id)
            time.sleep(POLL_S)

    def _settled(self, run_id: RunId, summary: RunSummary) -> RunSummary:
        """Return the summary once all that a run elsewhere wrote is here, as far as its hosts answer."""
        if not self._is_elsewhere(run_id):
            return summary
        self.fleet.following.settle(run_id, _REACH_S)
        self._synchronizer.drain(run_id)
        return self.summary(run_id)

    def updated(self, run_id: RunId) -> RunSummary:
        """Take in what a run has written here since, and return it; UserError when there is no such run.

        Cheap enough to be called a few times a second; of a run elsewhere, ``fleet.following.follow`` brings the news here.
        """
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

    def _known_hardware(self) -> HardwareReport:
        """Return what this machine had when it was first asked: its devices and their sizes stay."""
        if self._hardware is None:
            self._hardware = self.hardware()
        return self._hardware

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
