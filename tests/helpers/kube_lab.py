"""A stand-in cluster with a home to mirror runs into, and what the tests ask of both."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.contracts.ids import RunId, new_run_id
from core.contracts.specs import RunSpec
from core.fleet.kubernetes import KubernetesCluster, KubernetesFollower, prepare
from core.jobs.records import SupervisorRecord, read_record, write_record
from core.plugins.decode import decode_spec, encode_spec
from core.runlog.layout import RunLayout
from core.settings.home import Home
from tests.helpers.kube_api import KubeApi, kube_api
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for


class KubeLab:
    """Launches runs on the stand-in as the program does."""

    def __init__(self, api: KubeApi, home: Home, kubeconfig: Path) -> None:
        self.api = api
        self.home = home
        self.kubeconfig = kubeconfig
        self.told: list[str] = []
        self._followers: list[KubernetesFollower] = []

    def toy(
        self, *, launch: dict[str, Any] | None = None, asked: dict[str, Any] | None = None, **fields: Any
    ) -> RunSpec:
        """Return a spec of the toy kind."""
        kubernetes = {"context": "standin", "image": "img:1", **(asked or {})}
        return decode_spec({"kind": "test.toy", **fields, "launch": {**(launch or {}), "kubernetes": kubernetes}})

    def cluster(self, spec: RunSpec) -> KubernetesCluster:
        return KubernetesCluster.of(spec.launch.kubernetes, self.kubeconfig)

    def launch(self, spec: RunSpec) -> RunId:
        """Make the mirror and apply the manifest."""
        run_id = new_run_id("toy")
        made = prepare(spec, run_id)
        layout = RunLayout(self.home.run_dir(run_id))
        layout.control.mkdir(parents=True)
        layout.spec.write_text(encode_spec(spec), encoding="utf-8")
        write_record(layout.placement, made.placement)
        self.cluster(spec).apply(made.manifest, run_id)
        return run_id

    def follow(self, spec: RunSpec, run_id: RunId) -> KubernetesFollower:
        """Start to follow a run."""
        follower = KubernetesFollower(self.cluster(spec), self.home.run_dir(run_id), self.told.append)
        follower.start()
        self._followers.append(follower)
        return follower

    def pod_file(self, name: str) -> Path:
        """Return a file of the run directory inside of the one pod that has it."""
        return wait_for(lambda: next(iter(self.api.machine.folder.rglob(name)), None), name)

    def lines(self, run_id: RunId, name: str) -> int:
        """Return how many lines of a file are in the mirror."""
        path = self.home.run_dir(run_id) / name
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def kill_worker(self, node: str) -> None:
        """Kill the worker of a node inside of its pod."""
        record = read_record(self.pod_file(f"supervisor.{node}.json"), SupervisorRecord)
        assert record is not None
        assert record.worker is not None
        os.kill(record.worker.pid, signal.SIGKILL)

    def claim(self, name: str) -> None:
        """Make a volume claim that several machines can mount."""
        spec = {"accessModes": ["ReadWriteMany"]}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
        self.api.put("persistentvolumeclaims", body)

    def close(self) -> None:
        for follower in self._followers:
            follower.close()


@contextmanager
def opened_kube_lab(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeLab]:
    """Yield a lab; at the end nothing of it runs."""
    install_toy(folder / "plugin", monkeypatch)
    prepared = Home(home)
    prepared.prepare()
    with kube_api(folder / "cluster") as api:
        lab = KubeLab(api, prepared, api.kubeconfig(folder))
        try:
            yield lab
        finally:
            lab.close()
