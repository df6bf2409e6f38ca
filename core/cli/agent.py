"""The agent: a program on a host that answers requests and pushes what followed runs write, for as long as its input lasts.

``python -P -m core.cli.agent --home WORK_DIR``. It speaks frames (``core.runlog.frames``) on its standard input and output
and holds no state that anybody depends on: runs go on without it. A request has a thread of its own, so a slow one
blocks no other; one thread pushes files, one telemetry. Only a few megabytes are ever on their way (``Credit``).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.cli.agent_requests import Requests, refused, standing_of
from core.contracts import agent as said
from core.contracts.errors import PilothouseError
from core.hardware.sampler import HostSampler
from core.jobs.identity import boot_id
from core.jobs.pushing import RunPusher
from core.runlog.frames import MARK, FrameReader, frame
from core.settings.home import Home

WINDOW_BYTES = 4 << 20
_POLL_S = 0.2
_BEAT_S = 2.0
_READ_BYTES = 1 << 16
_LATER = "Try again in a moment."
_MOST_AT_ONCE = 32
_TURN_BYTES = 1 << 20
_decode = msgspec.msgpack.Decoder(said.Asked).decode


class Line:
    """The way back: whole frames, one writer at a time, and no more pushed bytes on their way than the window."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._room = threading.Condition()
        self._on_way = 0
        self.is_closed = False
        self._write(MARK)

    def send(self, message: said.FromAgent) -> None:
        """Send one message; once the other side is gone, nothing."""
        self._write(frame(msgspec.msgpack.encode(message)))

    def push(self, chunk: said.FileChunk) -> None:
        """Send a chunk when there is room for it; blocks until then."""
        with self._room:
            self._room.wait_for(lambda: self._on_way < WINDOW_BYTES or self.is_closed)
            self._on_way += len(chunk.data)
        self.send(chunk)

    def credit(self, amount: int) -> None:
        """Take note that pushed bytes have arrived."""
        with self._room:
            self._on_way -= amount
            self._room.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._room:
            self.is_closed = True
            self._room.notify_all()

    def _write(self, data: bytes) -> None:
        with self._lock:
            try:
                while data and not self.is_closed:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self.close()


@dataclass(slots=True, eq=False)
class _Followed:
    """A followed run, and how far the present pass over its files is."""

    asked: said.Follow
    pusher: RunPusher
    chunks: Iterator[said.FileChunk] | None = None
    began: float = 0.0
    standings: tuple[said.NodeStanding, ...] = ()
    told_at: float = 0.0
    look_again: bool = False
    not_before: float = 0.0


class Pushing:
    """Pushes what the nodes of followed runs write, and where they stand. One thread of its own.

    A run with much to send gets its turn like any other: a backlog of one does not hold up the rest.
    """

    def __init__(self, requests: Requests, line: Line) -> None:
        self._requests = requests
        self._line = line
        self._lock = threading.Lock()
        self._runs: dict[str, _Followed] = {}
        self._wake = threading.Event()
        threading.Thread(target=self._loop, name="pushing", daemon=True).start()

    def follow(self, asked: said.Follow) -> None:
        """Push a run from now on; UserError for what is no run's id."""
        pusher = RunPusher(
            self._requests.run_dir(asked.run_id),
            asked.nodes,
            asked.offsets,
            backlog_bytes=asked.stdout_backlog_bytes,
            tail_bytes=asked.stdout_tail_bytes,
        )
        with self._lock:
            self._runs[asked.run_id] = _Followed(asked, pusher)
        self._wake.set()

    def unfollow(self, run_id: str) -> None:
        """Push a run no more."""
        with self._lock:
            self._runs.pop(run_id, None)

    def _loop(self) -> None:
        while not self._line.is_closed:
            with self._lock:
                runs = list(self._runs.values())
            has_more = False
            for run in runs:
                if time.monotonic() >= run.not_before:
                    has_more = self._turn(run) or has_more
            if not has_more:
                self._wake.wait(_POLL_S)
            self._wake.clear()

    def _turn(self, run: _Followed) -> bool:
        """Push the next part of a run; return whether more of it waits."""
        try:
            return self._push(run)
        except Exception as error:  # noqa: BLE001 - the top frame of a run's turn; the others must go on
            run.chunks, run.not_before = None, time.monotonic() + _BEAT_S
            why = (
                error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
            )
            message = f"What the run wrote cannot be read on the host: {why}."
            self._line.send(said.Unread(run_id=run.asked.run_id, message=message))
            return False

    def _push(self, run: _Followed) -> bool:
        run_id, now = run.asked.run_id, time.monotonic()
        if run.chunks is None:
            run.began = time.time()
            # Judged before the files are read: who left an exit record had written everything else.
            is_due = run.look_again or now - run.told_at >= _BEAT_S
            run_dir = self._requests.run_dir(run_id)
            run.standings = tuple(standing_of(run_dir, node) for node in run.asked.nodes) if is_due else ()
            run.look_again = False
            run.chunks = run.pusher.chunks()
        room = _TURN_BYTES
        for chunk in run.chunks:
            self._line.push(chunk)
            if self._line.is_closed or self._runs.get(run_id) is not run:
                return False
            if chunk.is_record:  # a record came or went: look again, after this pass, at where the run stands
                run.look_again = True
            room -= len(chunk.data)
            if room <= 0:
                return True
        run.chunks = None
        if run.standings:
            self._line.send(said.CaughtUp(run_id=run_id, began=run.began, standings=run.standings))
            run.told_at = now
        return False


class Watching:
    """Pushes telemetry of the host while it is wanted. A thread of its own while that is so."""

    def __init__(self, folder: Path, line: Line) -> None:
        self._folder = folder
        self._line = line
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, period_s: float) -> None:
        """Push readings from now on, or end it with 0."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if period_s <= 0:
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, args=(self._stop, period_s), name="telemetry", daemon=True)
        self._thread.start()

    def _loop(self, stop: threading.Event, period_s: float) -> None:
        sampler = HostSampler(self._folder)
        try:
            while not stop.is_set() and not self._line.is_closed:
                self._line.send(said.Readings(ts=time.time(), values=sampler.sample()))
                stop.wait(period_s)
        finally:
            sampler.close()


class Agent:
    """Reads requests until the input ends."""

    def __init__(self, home: Home, line: Line) -> None:
        self._line = line
        self._requests = Requests(home)
        self._pushing = Pushing(self._requests, line)
        self._watching = Watching(home.path, line)
        self._places = threading.Semaphore(_MOST_AT_ONCE)

    def serve(self, descriptor: int) -> None:
        """Answer until the input ends or is damaged."""
        reader = FrameReader()
        while not self._line.is_closed and (data := os.read(descriptor, _READ_BYTES)):
            try:
                asked = [_decode(payload) for payload in reader.feed(data)]
            except (PilothouseError, msgspec.MsgspecError) as error:
                self._line.send(said.Answered(number=-1, body=refused(error)))
                break
            for one in asked:
                self._take(one)
        self._line.close()
        self._requests.close()

    def _take(self, asked: said.Asked) -> None:
        if isinstance(asked.body, said.Credit):
            self._line.credit(asked.body.amount)
            return
        if not self._places.acquire(blocking=False):  # waiting here would keep credits from being read
            busy = said.Refused(message="The host is busy with other requests.", hint=_LATER, is_environment=True)
            self._line.send(said.Answered(number=asked.number, body=busy))
            return
        threading.Thread(target=self._answer, args=(asked,), name="request", daemon=True).start()

    def _answer(self, asked: said.Asked) -> None:
        try:
            body = self._now(asked.body)
        except Exception as error:  # noqa: BLE001 - the top frame of a request's thread; the agent must go on
            body = refused(error)
        finally:
            self._places.release()
        self._line.send(said.Answered(number=asked.number, body=body))

    def _now(self, request: said.AnyRequest) -> said.AnyAnswer:
        match request:
            case said.Follow():
                self._pushing.follow(request)
            case said.Unfollow():
                self._pushing.unfollow(request.run_id)
            case said.Telemetry():
                self._watching.watch(request.period_s)
            case _:
                return self._requests.answer(request)
        return said.Done()


def version() -> str:
    """Return the version of the worker package that this code belongs to, or of Pilothouse itself."""
    for name in ("pilothouse-worker", "pilothouse"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def main(arguments: list[str]) -> int:
    """Serve on standard input and output; return the exit status."""
    parser = argparse.ArgumentParser(prog="agent", description="Answers Pilothouse on this host.")
    parser.add_argument("--home", required=True, help="work folder on this host")
    home = Home(Path(parser.parse_args(arguments).home).expanduser())
    try:
        home.prepare()
    except PilothouseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # What a library prints must not get between frames.
    descriptor = os.dup(1)
    os.dup2(2, 1)
    line = Line(descriptor)
    line.send(
        said.Hello(
            protocol=said.PROTOCOL_VERSION,
            version=version(),
            hostname=socket.gethostname(),
            boot_id=boot_id(),
            ts=time.time(),
            home=str(Path.home()),
            work_dir=str(home.path),
            python=sys.executable,
            pid=os.getpid(),
        )
    )
    Agent(home, line).serve(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
