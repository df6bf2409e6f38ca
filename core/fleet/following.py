"""Brings runs on other machines here, whichever way they were launched, as long as they go on.

Runs by SSH and through Slurm come by the mirror, those on Kubernetes by their pods' logs; of a Slurm job Slurm is asked
too. Whoever has the workspace open follows; several processes may, of which one writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from core.contracts.ids import RunId
from core.contracts.placement import Placement
from core.fleet.parts import parts_of
from core.runlog.placements import is_elsewhere, is_mirrored, read_placement
from core.settings.home import Home

if TYPE_CHECKING:
    from core.fleet.kubernetes.follower import KubernetesFollower
    from core.fleet.mirror import Mirror
    from core.fleet.pool import HostPool
    from core.fleet.slurm_watch import SlurmWatch

OnChange = Callable[[RunId], None]


class Following:
    """Follows runs of one home until closed. Thread-safe."""

    def __init__(self, home: Home, pool: Callable[[], HostPool]) -> None:
        """Prepare; nothing is connected or imported before there is a run to follow.

        Args:
            home: The home.
            pool: Returns the connections.
        """
        self._home = home
        self._pool = pool
        self._lock = threading.Lock()
        self._mirror: Mirror | None = None
        self._slurm: SlurmWatch | None = None
        self._pods: dict[RunId, tuple[int, KubernetesFollower]] = {}
        self._callbacks: list[OnChange] = []
        self._is_closed = False

    def on_change(self, callback: OnChange) -> None:
        """Call back with a run's id when something new of it is here; on background threads."""
        self._callbacks.append(callback)

    def remove_callback(self, callback: OnChange) -> None:
        """Call back no more."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def _tell(self, run_id: RunId) -> None:
        for callback in list(self._callbacks):
            callback(run_id)

    def follow(self, run_id: RunId) -> bool:
        """Bring a run here from now on; returns at once. False for a run that is on this machine alone."""
        run_dir = self._home.run_dir(run_id)
        placement = read_placement(run_dir)
        if placement is None or not is_elsewhere(placement):
            return False
        if placement.engine == "kubernetes":
            self._follow_pods(run_id, placement)
            return True
        mirror, slurm = self._made()
        if mirror is None or slurm is None:
            return True
        if is_mirrored(placement):
            mirror.follow(run_dir)
        if placement.engine == "slurm":
            slurm.add(run_dir)
        return True

    def _made(self) -> tuple[Mirror | None, SlurmWatch | None]:
        with self._lock:
            if self._mirror is None and not self._is_closed:
                from core.fleet.mirror import Mirror
                from core.fleet.slurm_watch import SlurmWatch

                self._mirror = Mirror(self._home, self._pool())
                self._mirror.on_change(self._tell)
                self._slurm = SlurmWatch(self._pool(), self._mirror, self._tell)
            return self._mirror, self._slurm

    def _follow_pods(self, run_id: RunId, placement: Placement) -> None:
        from core.fleet.kubernetes import KubernetesCluster
        from core.fleet.kubernetes.follower import KubernetesFollower
        from core.plugins.decode import read_spec
        from core.runlog.layout import RunLayout

        run_dir = self._home.run_dir(run_id)
        with self._lock:
            known = self._pods.get(run_id)
            if self._is_closed or (known is not None and known[0] == placement.attempt):
                return
            cluster = KubernetesCluster.of(read_spec(RunLayout(run_dir).spec).launch.kubernetes)
            follower = KubernetesFollower(cluster, run_dir, lambda run: self._tell(RunId(run)))
            self._pods[run_id] = (placement.attempt, follower)
        if known is not None:
            known[1].close()
        follower.start()

    def unfollow(self, run_id: RunId) -> None:
        """Bring no more of a run here."""
        with self._lock:
            pods = self._pods.pop(run_id, None)
        if pods is not None:
            pods[1].close()
        if self._mirror is not None:
            self._mirror.unfollow(run_id)
        if self._slurm is not None:
            self._slurm.drop(run_id)

    def catch_up(self, run_id: RunId, timeout_s: float) -> bool:
        """Wait until all that a run had written at the time of the call is here; return whether it is."""
        if not self.follow(run_id):
            return True
        with self._lock:
            pods = self._pods.get(run_id)
        if pods is not None:
            return pods[1].catch_up(timeout_s)
        return self._mirror is None or self._mirror.catch_up(run_id, timeout_s)

    def settle(self, run_id: RunId, timeout_s: float) -> bool:
        """Wait, after a run's end, until all that its nodes wrote is here; return whether it is.

        A node whose host does not answer is not waited for.
        """
        deadline = time.monotonic() + timeout_s
        run_dir = self._home.run_dir(run_id)
        while True:
            placement = read_placement(run_dir)
            if placement is None or not is_elsewhere(placement):
                return True
            parts = parts_of(run_dir, placement)
            waited = [part for part in parts if part.link.is_reachable and part.link.last_contact is not None]
            if all(part.link.is_complete for part in waited):
                return len(waited) == len(parts)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    def close(self) -> None:
        """Follow nothing any more; returns when all threads have ended."""
        with self._lock:
            self._is_closed = True
            mirror, slurm, pods = self._mirror, self._slurm, list(self._pods.values())
        for _, follower in pods:
            follower.close()
        if slurm is not None:
            slurm.close()
        if mirror is not None:
            mirror.close()
