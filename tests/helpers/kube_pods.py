"""The stand-in's machines: containers of pods really run, as processes of this machine, with logs and exit codes.

There are no mount namespaces and no DNS here. So the paths of mounts are replaced by local folders wherever they stand
in a command, and the pods' host names in mounted files by addresses of the loopback interface. Variables in a command
are put in as the kubelet does, ``$$`` included.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Object = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
_KEPT = ("PATH", "PYTHONPATH", "HOME", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "PILOTHOUSE_HOME")
_VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def expanded(text: str, env: dict[str, str]) -> str:
    """Put variables into a word of a command as the kubelet does."""

    def put_in(found: re.Match[str]) -> str:
        if found.group() == "$$":
            return "$"
        return env.get(found.group(1), found.group())

    return _VARIABLE.sub(put_in, text)


class ContainerLog:
    """What a container printed, with times; outlives the container, readable by many."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.lines: list[tuple[float, bytes]] = []
        self.is_closed = False

    def add(self, line: bytes) -> None:
        with self.changed:
            self.lines.append((time.time(), line))
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()


class Container:
    """One run of a pod's container."""

    def __init__(self, argv: list[str], env: dict[str, str], on_end: Callable[[int], None]) -> None:
        self.log = ContainerLog()
        self._on_end = on_end
        self.process = subprocess.Popen(
            argv,
            env=env,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.add(line.rstrip(b"\n"))
        self.process.stdout.close()
        code = self.process.wait()
        self.log.close()
        self._on_end(code if code >= 0 else 128 - code)

    def end(self, grace_s: float) -> None:
        """TERM, and KILL after the grace; returns at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            timer = threading.Timer(grace_s, self.kill)
            timer.daemon = True
            timer.start()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()


class Machine:
    """The one machine of the stand-in's cluster: folders for volumes, addresses for pods."""

    def __init__(self, folder: Path, network: str) -> None:
        """``network`` is such as ``127.77.3``: pod ``i`` of a job has ``127.77.3.<i+1>``."""
        self.folder = folder
        self.network = network
        self.hides_package = False

    def start(
        self, pod: Object, objects: Callable[[str, str], Object | None], on_end: Callable[[int], None]
    ) -> Container:
        """Start a pod's container; ``objects(resource, name)`` finds ConfigMaps and Secrets.

        Raises KeyError when one of them is missing.
        """
        container = pod["spec"]["containers"][0]
        root = self._root(pod, objects)
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [env.get("PYTHONPATH", "")])])
        for source in container.get("envFrom", ()):
            secret = objects("secrets", source["secretRef"]["name"])
            if secret is None:
                raise KeyError(source["secretRef"]["name"])
            env |= _texts(secret)
        env |= self._variables(pod, container)
        words = [self._local(expanded(word, env), mounts, root) for word in container["command"]]
        if words[0] == "python":
            words[0] = sys.executable
        if self.hides_package:  # as in an image without it: no site packages, and nothing on the path
            words.insert(1, "-S")
            del env["PYTHONPATH"]
        return Container(words, env, on_end)

    def words_inside(self, pod: Object, words: list[str]) -> list[str]:
        """Return a command to be run inside of a pod as one to be run here."""
        mounts = [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]]
        local = [self._local(word, mounts, self.folder / "pods" / pod["metadata"]["uid"]) for word in words]
        return [sys.executable, *local[1:]] if local[0] == "python" else local

    def live_processes(self) -> list[int]:
        """Return processes whose command line names a folder of this machine."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if f"{self.folder}/".encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def _variables(self, pod: Object, container: Object) -> dict[str, str]:
        meta = pod["metadata"]
        fields = {"metadata.name": meta["name"], "metadata.uid": meta["uid"], "spec.nodeName": pod["spec"]["nodeName"]}
        found: dict[str, str] = {}
        for one in container.get("env", ()):
            source = one.get("valueFrom")
            found[one["name"]] = fields[source["fieldRef"]["fieldPath"]] if source else one.get("value", "")
        found["JOB_COMPLETION_INDEX"] = meta["annotations"]["batch.kubernetes.io/job-completion-index"]
        return found

    def _root(self, pod: Object, objects: Callable[[str, str], Object | None]) -> Path:
        """Make the folder that stands for the container's ``/``, with the mounts in it."""
        root = self.folder / "pods" / pod["metadata"]["uid"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for mount in pod["spec"]["containers"][0]["volumeMounts"]:
            volume = volumes[mount["name"]]
            folder = Path(f"{root}{mount['mountPath']}")
            if "persistentVolumeClaim" in volume:
                claim = self.folder / "claims" / volume["persistentVolumeClaim"]["claimName"]
                claim.mkdir(parents=True, exist_ok=True)
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.symlink_to(claim)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for resource, key, name in (("configMap", "configmaps", "name"), ("secret", "secrets", "secretName")):
                if resource in volume:
                    source = objects(key, volume[resource][name])
                    if source is None:
                        raise KeyError(volume[resource][name])
                    self._fill(folder, source)
        return root

    def _fill(self, folder: Path, source: Object) -> None:
        for name, text in _texts(source).items():
            (folder / name).write_text(self._resolved(text), encoding="utf-8")
        if source["kind"] == "ConfigMap":
            for name, data in source.get("binaryData", {}).items():
                (folder / name).write_bytes(base64.b64decode(data))

    def _resolved(self, text: str) -> str:
        """Put addresses in the place of the pods' names: the stand-in's DNS."""
        return re.sub(
            r'"ph-[a-z0-9-]+-(\d+)\.ph-[a-z0-9-]+"', lambda found: f'"{self.network}.{int(found.group(1)) + 1}"', text
        )

    @staticmethod
    def _local(word: str, mounts: list[str], root: Path) -> str:
        """Put the local folder in front of a path that is a mount, below one, or above some."""
        is_path = any(word == path or word.startswith(f"{path}/") or path.startswith(f"{word}/") for path in mounts)
        return f"{root}{word}" if is_path and word.startswith("/") else word


def _texts(source: Object) -> dict[str, str]:
    if source["kind"] == "Secret":
        plain = {name: base64.b64decode(data).decode() for name, data in source.get("data", {}).items()}
        return plain | source.get("stringData", {})
    return dict(source.get("data", {}))
