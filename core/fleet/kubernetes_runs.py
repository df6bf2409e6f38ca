"""Runs on Kubernetes: the manifest applied with the user's own kubectl, the run directory here as its mirror."""

from __future__ import annotations

from core.contracts.errors import EnvironmentProblem, PilothouseError, UserError
from core.contracts.hosts import Progress, Watcher
from core.contracts.ids import RunId, new_run_id
from core.contracts.specs import RunSpec
from core.fleet.kubernetes import KubernetesCluster, manifest, prepare, require_fit
from core.fleet.run_folder import RunFolder
from core.plugins.decode import read_spec
from core.settings.home import Home

_NO_PROFILE = "A run on Kubernetes cannot be asked for a profile while it runs."
_NO_PAUSE = "A run on Kubernetes cannot be paused."


class KubernetesRuns:
    """Applies and acts on runs in clusters. Thread-safe; blocks."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def preview(self, spec: RunSpec) -> str:
        """Return the manifest that a launch would apply; asks no cluster."""
        return manifest(spec, new_run_id(spec.name))

    def launch(self, spec: RunSpec, watcher: Watcher) -> RunId:
        """Apply a run's manifest.

        Raises:
            InvalidSpec: All that cannot be asked of Kubernetes.
            EnvironmentProblem: There is no kubectl, or the cluster is not fit or refuses; nothing is left behind.
        """
        run_id = new_run_id(spec.name)
        made = prepare(spec, run_id)
        cluster = self._cluster(spec)
        watcher.report(Progress(stage="Looking at the cluster"))
        require_fit(cluster, spec)
        folder = RunFolder(self._home, run_id)
        folder.make(spec, made.placement, None)
        watcher.report(Progress(stage="Applying the manifest"))
        try:
            cluster.apply(made.manifest, run_id)
        except PilothouseError:
            folder.remove()
            raise
        return run_id

    @staticmethod
    def _cluster(spec: RunSpec) -> KubernetesCluster:
        return KubernetesCluster.of(spec.launch.kubernetes)

    def _of(self, folder: RunFolder) -> KubernetesCluster:
        return self._cluster(read_spec(folder.layout.spec))

    def resume(self, run_id: str, hosts: tuple[str, ...] | None, watcher: Watcher) -> int:
        """Take away what is left of the last attempt and apply a further one."""
        if hosts is not None:
            raise UserError("Pods run where the cluster puts them.", "Resume it without naming hosts.")
        folder = RunFolder(self._home, run_id)
        spec, before = read_spec(folder.layout.spec), folder.placement()
        attempt = folder.last_attempt() + 1
        made = prepare(spec, run_id, attempt=attempt)
        cluster = self._cluster(spec)
        watcher.report(Progress(stage="Removing the last attempt from the cluster"))
        cluster.delete(run_id, is_cancelled=watcher.is_cancelled)
        folder.begin_attempt(made.placement)
        watcher.report(Progress(stage="Applying the manifest"))
        try:
            cluster.apply(made.manifest, run_id)
        except PilothouseError:
            folder.take_back_attempt(before)
            raise
        return attempt

    def stop(self, folder: RunFolder) -> None:
        """Have the pods told to save and end."""
        folder.layout.stop_request.touch()  # tells a run that was ended on request from one that was lost
        self._of(folder).stop(folder.run_id, folder.placement().head.run_dir)

    def pause(self, folder: RunFolder) -> None:
        """Refuse: a pod that waits would hold its GPUs."""
        del folder
        raise UserError(_NO_PAUSE, "Stop it, and resume it later from its last checkpoint.")

    def proceed(self, folder: RunFolder) -> None:
        """Refuse, as ``pause``."""
        self.pause(folder)

    def profile(self, folder: RunFolder, steps: int, ranks: tuple[int, ...]) -> None:
        """Refuse: nothing is written into a pod that runs."""
        del folder, steps, ranks
        raise UserError(_NO_PROFILE, "Set 'Profile at step' (tuning.profile_at_step) in its spec before the launch.")

    def end_leftovers(self, folder: RunFolder) -> dict[str, tuple[int, ...]]:
        """Take the run's objects out of the cluster; Kubernetes ends what is in them."""
        self._of(folder).delete(folder.run_id)
        return {}

    def remove(self, folder: RunFolder) -> tuple[str, ...]:
        """Take the run's objects out of the cluster; what is on a volume claim stays."""
        try:
            self._of(folder).delete(folder.run_id)
        except EnvironmentProblem as error:
            return (f"The cluster still has objects of the run: {error.message}",)
        return ()
