"""The user's own ``kubectl``, driven as a program: it knows the contexts, the credential plug-ins and the proxies.

Nothing of authentication is done here. What it complains of becomes one sentence and a remedy (``refusals``). Blocks:
never on the UI thread.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from core.contracts.errors import EnvironmentProblem
from core.fleet.kubernetes.refusals import explain, too_slow

REQUEST_LIMIT_S = 30.0
_MARGIN_S = 10.0


def find_kubectl() -> str:
    """Return the path of ``kubectl``; EnvironmentProblem when there is none."""
    found = shutil.which("kubectl") or shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if found is None:
        raise EnvironmentProblem(
            "The program kubectl is not on this machine.",
            "Install kubectl (see kubernetes.io/docs/tasks/tools) and put it on the PATH.",
        )
    return found


class Kubectl:
    """``kubectl`` with one context and namespace. Thread-safe: each call is a process of its own.

    Every method raises ``EnvironmentProblem`` with a sentence and a remedy when kubectl is absent or refuses.
    """

    def __init__(self, context: str = "", namespace: str = "", kubeconfig: Path | None = None) -> None:
        self.context = context
        self.namespace = namespace
        self._kubeconfig = kubeconfig

    def words(self, args: Sequence[str]) -> list[str]:
        """Return the whole command line for some arguments."""
        options = [f"--context={self.context}"] if self.context else []
        options += [f"--namespace={self.namespace}"] if self.namespace else []
        options += [f"--kubeconfig={self._kubeconfig}"] if self._kubeconfig is not None else []
        return [find_kubectl(), *options, *args]

    def run(self, args: Sequence[str], *, stdin: bytes = b"", timeout_s: float = REQUEST_LIMIT_S) -> bytes:
        """Run a command to its end and return what it printed."""
        words = self.words([f"--request-timeout={timeout_s:g}s", *args])
        try:
            done = subprocess.run(
                words, input=stdin, capture_output=True, timeout=timeout_s + _MARGIN_S, check=False, env=_environment()
            )
        except subprocess.TimeoutExpired as error:
            raise too_slow(timeout_s + _MARGIN_S) from error
        except OSError as error:
            raise EnvironmentProblem(
                f"kubectl cannot be started: {error.strerror or error}.", "Check the program on your PATH."
            ) from error
        if done.returncode != 0:
            raise explain(done.stderr.decode(errors="replace"), self.context)
        return done.stdout

    def json(self, args: Sequence[str], *, timeout_s: float = REQUEST_LIMIT_S) -> dict[str, Any]:
        """Run a command with ``-o json`` and return the object it printed."""
        text = self.run([*args, "--output=json"], timeout_s=timeout_s)
        try:
            return cast("dict[str, Any]", json.loads(text or b"{}"))
        except ValueError as error:
            raise EnvironmentProblem(
                "kubectl answered with something that is not JSON.", "Check what kubectl on your PATH is."
            ) from error

    def start(self, args: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command whose output is read as it comes; the caller ends it."""
        try:
            return subprocess.Popen(
                self.words(args),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
            )
        except OSError as error:
            raise EnvironmentProblem(
                f"kubectl cannot be started: {error.strerror or error}.", "Check the program on your PATH."
            ) from error


def _environment() -> dict[str, str]:
    """Return the environment for kubectl: the user's own, with messages in English."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def contexts(kubeconfig: Path | None = None) -> tuple[str, ...]:
    """Return the names of the contexts in the user's kubeconfig, sorted; empty without one.

    Raises:
        EnvironmentProblem: There is no kubectl, or the kubeconfig is damaged.
    """
    listed = Kubectl(kubeconfig=kubeconfig).run(["config", "get-contexts", "--output=name"])
    return tuple(sorted(line for line in listed.decode(errors="replace").splitlines() if line))


def current_context(kubeconfig: Path | None = None) -> str:
    """Return the context that kubectl uses by itself; empty when none is set."""
    config = Kubectl(kubeconfig=kubeconfig).json(["config", "view"])
    return str(config.get("current-context") or "")
