"""Launches and acts on runs that are not, or not only, on this machine: by SSH, through Slurm, or on Kubernetes.

Which of them a run is for is told by its spec at launch and by its placement from then on. Each act is done by the
engine's own class; what they share is here. Everything blocks: never on the UI thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from core.contracts.errors import PilothouseError, UserError
from core.contracts.hosts import LOCAL_HOST, NoWatcher, Watcher
from core.contracts.ids import RunId
from core.contracts.placement import Engine
from core.contracts.specs import LaunchSpec, RunSpec
from core.contracts.states import RESUMABLE_STATES, RunState
from core.fleet.given_up import note_given_up
from core.fleet.parts import parts_of
from core.fleet.run_folder import RunFolder
from core.fleet.standing import standing_of
from core.plugins.registry import registry
from core.runlog.placements import read_placement
from core.settings.home import Home

if TYPE_CHECKING:
    from core.fleet.fleet import Fleet


class RunEngine(Protocol):
    """Launches runs in one way and acts on them."""

    def preview(self, spec: RunSpec) -> str:
        """Return what a launch would do, for people."""
        ...

    def launch(self, spec: RunSpec, watcher: Watcher) -> RunId:
        """Start a run, or raise with nothing left behind."""
        ...

    def resume(self, run_id: str, hosts: tuple[str, ...] | None, watcher: Watcher) -> int:
        """Start an ended run once more; return the number of the attempt."""
        ...

    def stop(self, folder: RunFolder) -> None:
        """Ask a run to save and end."""
        ...

    def pause(self, folder: RunFolder) -> None:
        """Ask a run to pause."""
        ...

    def proceed(self, folder: RunFolder) -> None:
        """Let a paused run go on."""
        ...

    def profile(self, folder: RunFolder, steps: int, ranks: tuple[int, ...]) -> None:
        """Ask ranks of the head for a profile of their next steps."""
        ...

    def end_leftovers(self, folder: RunFolder) -> dict[str, tuple[int, ...]]:
        """End what is left of an ended run; return by host the processes that could not be ended."""
        ...

    def remove(self, folder: RunFolder) -> tuple[str, ...]:
        """Remove what the run has elsewhere; return sentences on what could not be reached."""
        ...


def engine_of(launch: LaunchSpec) -> Engine | None:
    """Return how a spec wants to be launched; None for this machine alone.

    Raises:
        UserError: It names more than one way.
    """
    is_elsewhere = launch.hosts not in ((), (LOCAL_HOST,))
    ways: dict[Engine, bool] = {
        "direct": is_elsewhere,
        "slurm": bool(launch.slurm.cluster),
        "kubernetes": bool(launch.kubernetes.context),
    }
    chosen: list[Engine] = [engine for engine, is_wanted in ways.items() if is_wanted]
    if len(chosen) > 1:
        places = " and ".join(_TO[engine] for engine in chosen)
        raise UserError(f"The run is to go {places} at once.", "Choose one of them.")
    return chosen[0] if chosen else None


_TO: dict[Engine, str] = {"direct": "to hosts", "slurm": "to Slurm", "kubernetes": "to Kubernetes"}


class RemoteRuns:
    """All runs elsewhere of one home. Thread-safe; blocks."""

    def __init__(self, home: Home, fleet: Fleet) -> None:
        self._home = home
        self._fleet = fleet

    @cached_property
    def _engines(self) -> Mapping[Engine, RunEngine]:
        from core.fleet.direct_runs import DirectRuns
        from core.fleet.kubernetes_runs import KubernetesRuns
        from core.fleet.slurm_runs import SlurmRuns

        pool = self._fleet.pool
        return {
            "direct": DirectRuns(self._home, pool),
            "slurm": SlurmRuns(self._home, pool),
            "kubernetes": KubernetesRuns(self._home),
        }

    def _folder(self, run_id: str) -> tuple[RunFolder, RunEngine]:
        folder = RunFolder(self._home, run_id)
        return folder, self._engines[folder.placement().engine]

    def preview(self, spec: RunSpec) -> str:
        """Return what a launch would do: the ``sbatch`` script, the manifest, or the plan for each host."""
        engine = engine_of(spec.launch)
        if engine is None:
            return "Runs on this machine."
        return self._engines[engine].preview(self._named(spec))

    def launch(self, spec: RunSpec, watcher: Watcher | None = None) -> RunId:
        """Start a run elsewhere; nothing is left behind when it cannot be.

        Raises:
            InvalidSpec: What its hosts, or the cluster, have against it; all at once.
            UserError: It cannot go there as asked.
            EnvironmentProblem: A host or the cluster does not answer or is not as needed.
            Cancelled: The user cancelled.
        """
        engine = engine_of(spec.launch)
        assert engine is not None
        return self._engines[engine].launch(self._named(spec), watcher or NoWatcher())

    @staticmethod
    def _named(spec: RunSpec) -> RunSpec:
        if spec.name:
            return spec
        return msgspec.structs.replace(spec, name=registry().get(str(spec.__struct_config__.tag)).title)

    def resume(self, run_id: str, hosts: tuple[str, ...] | None = None, watcher: Watcher | None = None) -> int:
        """Start an ended run once more from its last checkpoint; return the number of the attempt.

        Args:
            run_id: The run.
            hosts: Other hosts, the head first; None for the same. For runs by SSH only.
            watcher: Sees the progress; may cancel.

        Raises:
            UserError: It still goes on, has succeeded, or is being resumed by somebody else just now.
            EnvironmentProblem: As ``launch``; or its checkpoints are out of reach.
        """
        folder, engine = self._folder(run_id)
        with _resuming(folder):
            state = standing_of(folder.path).state
            if state not in RESUMABLE_STATES:
                shown = state.value if state is not None else "still going on"
                raise UserError(f"The run {run_id} is {shown} and cannot be resumed.", "Clone it to run it again.")
            return engine.resume(run_id, hosts, watcher or NoWatcher())

    def stop(self, run_id: str) -> None:
        """Ask a run to save and end; one that has ended has its leftovers ended.

        Raises:
            UserError: It has ended, and nothing is left of it.
            EnvironmentProblem: No host of it, or the cluster, does not answer.
        """
        folder, engine = self._folder(run_id)
        standing = standing_of(folder.path)
        if standing.state is not None and standing.state.is_terminal:
            if standing.leftovers or standing.state is RunState.LOST:
                engine.end_leftovers(folder)
                return
            raise UserError(f"The run {run_id} has already ended ({standing.state.value}).")
        engine.stop(folder)

    def give_up(self, run_id: str) -> None:
        """Count a run as lost whose hosts do not answer any more; what can be reached of it is asked to stop.

        Raises:
            UserError: It has ended, or all its hosts answer.
            EnvironmentProblem: It cannot be noted here.
        """
        folder, engine = self._open(run_id)
        placement = read_placement(folder.path)
        assert placement is not None
        silent = [part.placed.host for part in parts_of(folder.path, placement) if not part.link.is_reachable]
        if not silent:
            raise UserError(f"All hosts of the run {run_id} answer.", "Stop it instead.")
        with contextlib.suppress(PilothouseError):
            engine.stop(folder)
        try:
            note_given_up(folder.path, placement.attempt, list(dict.fromkeys(silent)))
        except OSError as error:
            raise folder.cannot_write(error) from error

    def pause(self, run_id: str) -> None:
        """Ask a run to save, end its workers and wait; raises as ``stop``."""
        folder, engine = self._open(run_id)
        engine.pause(folder)

    def proceed(self, run_id: str) -> None:
        """Let a paused run go on; raises as ``stop``."""
        folder, engine = self._open(run_id)
        engine.proceed(folder)

    def profile(self, run_id: str, steps: int, ranks: tuple[int, ...]) -> None:
        """Ask ranks of the run's head for a profile of their next steps; raises as ``stop``."""
        folder, engine = self._open(run_id)
        engine.profile(folder, steps, ranks)

    def _open(self, run_id: str) -> tuple[RunFolder, RunEngine]:
        folder, engine = self._folder(run_id)
        state = standing_of(folder.path).state
        if state is not None and state.is_terminal:
            raise UserError(f"The run {run_id} has already ended ({state.value}).")
        return folder, engine

    def end_leftovers(self, run_id: str) -> dict[str, tuple[int, ...]]:
        """End what is left of an ended run on all its hosts; return by host the processes that could not be ended."""
        folder, engine = self._folder(run_id)
        return engine.end_leftovers(folder)

    def remove(self, run_id: str, run_dir: Path) -> tuple[str, ...]:
        """Remove what an ended run has elsewhere; return sentences on what could not be reached.

        Args:
            run_id: The run.
            run_dir: Its directory here, which may lie in the bin.
        """
        folder = RunFolder(self._home, run_id, run_dir)
        return self._engines[folder.placement().engine].remove(folder)


@contextlib.contextmanager
def _resuming(folder: RunFolder) -> Generator[None]:
    """Hold the right to resume a run: two at once would start two, each with half of the hosts.

    Raises:
        UserError: Another window, or a retry of its own accord, resumes it just now.
    """
    import fcntl

    try:
        folder.layout.control.mkdir(exist_ok=True)
        descriptor = os.open(folder.layout.control / "resume.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise folder.cannot_write(error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UserError(f"The run {folder.run_id} is being resumed already.", "Wait until it goes on.") from error
    try:
        yield
    finally:
        os.close(descriptor)
