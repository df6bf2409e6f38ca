"""Reads one pod's log to its end, over cuts: a thread with ``kubectl logs --follow``.

After a cut it attaches again a little before the last line's time; the mirror takes nothing twice. A stream that brings
no sign of life for half a minute counts as cut. Ends when the pod said its last word, or has ended and all was read.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from core.contracts.errors import EnvironmentProblem
from core.fleet.kubernetes.kubectl import Kubectl
from core.fleet.kubernetes.log_lines import MARK, record_of
from core.fleet.kubernetes.names import CONTAINER
from core.fleet.kubernetes.node_mirror import MissingPiece, NodeMirror, OtherFiles
from core.fleet.kubernetes.pod_states import PodStatus
from core.fleet.kubernetes.refusals import ClusterRefusal, explain

SILENT_LIMIT_S = 30.0
_OVERLAP = timedelta(seconds=2)
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0
_LINE_LIMIT = 1 << 16
_END_WAIT_S = 5.0


class PodReader:
    """Follows the log of one pod into a node's mirror, on a thread of its own."""

    def __init__(self, kubectl: Kubectl, pod: PodStatus, mirror: NodeMirror, on_change: Callable[[], None]) -> None:
        """Begin to read.

        Args:
            kubectl: The cluster.
            pod: Whose log.
            mirror: Takes what is read; used by this thread alone until it is done.
            on_change: Called on this thread when a file changed or a sign of life came.
        """
        self.pod = pod
        self.mirror = mirror
        self.mirror.ended = ""  # said by an earlier pod of the node
        self.last_line: float | None = None
        self.problem: EnvironmentProblem | None = None
        self.refusal: OtherFiles | None = None
        self._kubectl = kubectl
        self._on_change = on_change
        self._since: datetime | None = None
        self._fills = False
        self._has_ended = threading.Event()
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"log of {pod.name}", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """True when nothing more will come of this pod."""
        return not self._thread.is_alive()

    def pod_has_ended(self) -> None:
        """Tell that the pod's container has ended or is gone: the next end of the log is the last."""
        self._has_ended.set()

    def tick(self) -> None:
        """Cut a stream that brings no sign of life; call about once a second."""
        process = self._process
        if process is not None and time.monotonic() - self._heard > SILENT_LIMIT_S:
            process.kill()

    def close(self) -> None:
        """Stop reading; returns once the thread has ended."""
        self._closing.set()
        process = self._process
        if process is not None:
            process.kill()
        self._thread.join()

    def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._closing.is_set():
            was_over = self._has_ended.is_set()
            is_whole = False
            before = self.last_line
            try:
                is_whole = self._stream()
            except OtherFiles as refusal:
                self.refusal = refusal
                return
            except EnvironmentProblem as problem:
                self.problem = problem
                is_whole = isinstance(problem, ClusterRefusal) and problem.topic == "not_found"
            self._on_change()
            if self.mirror.ended or (was_over and is_whole):
                return
            wait_s = _FIRST_WAIT_S if self.last_line != before else min(wait_s * 2, _LONGEST_WAIT_S)
            self._closing.wait(wait_s)

    def _stream(self) -> bool:
        """Read until the stream ends; return whether that was the end of the log, as far as can be told.

        Raises:
            EnvironmentProblem: kubectl failed, or the files here cannot be written.
        """
        words = ["logs", self.pod.name, f"--container={CONTAINER}", "--follow", "--timestamps"]
        if self._since is not None:
            words.append(f"--since-time={self._since - _OVERLAP:%Y-%m-%dT%H:%M:%SZ}")
        process = self._kubectl.start(words)
        self._heard = time.monotonic()
        self._process = process
        errors = b""
        got = False
        try:
            assert process.stdout is not None
            while line := process.stdout.readline(_LINE_LIMIT):
                got = True
                self._heard = time.monotonic()
                self._take(line)
        except MissingPiece:
            # Read once more from the first line on; what is missing then was thrown away by the cluster.
            self._since, self._fills = None, True
            process.kill()
            return False
        finally:
            self._process = None
            errors = _end(process)
        self._fills = False
        if process.returncode > 0 and not got:
            raise explain(errors.decode(errors="replace"), self._kubectl.context)
        return process.returncode == 0

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            return  # torn by a cut; it comes again as a whole
        moment, _, rest = line.partition(b" ")
        time_of_line = _time_of(moment)
        record = record_of(rest)
        changed = True
        if record is not None:
            changed = self.mirror.take(record, fill=self._fills)
        elif MARK not in rest:
            self.mirror.take_other(rest if time_of_line is not None else line)
        if time_of_line is not None:
            self._since = time_of_line
        self.last_line = time.time()
        self.problem = None
        if changed:
            self._on_change()


def _end(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for kubectl to end, which it does by itself after the last line; return what it complained of."""
    timer = threading.Timer(_END_WAIT_S, process.kill)
    timer.start()
    try:
        return process.communicate()[1]
    finally:
        timer.cancel()


def _time_of(text: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(text.decode("ascii")).astimezone(UTC)
    except (ValueError, UnicodeDecodeError):
        return None
