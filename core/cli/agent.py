"""The agent: a program on a host that answers requests and pushes what followed runs write, for as long as its input lasts.

``python -P -m core.cli.agent --home WORK_DIR``. It speaks frames (``core.runlog.frames``) on its standard input and output
and holds no state that anybody depends on: runs go on without it. A request has a thread of its own, so a slow one
blocks no other; one thread pushes files, one telemetry. Only a few megabytes are ever on their way (``Credit``).
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from core.cli.agent_line import Line
from core.contracts import agent as said
from core.contracts.errors import PilothouseError
from core.jobs.identity import boot_id
from core.runlog.frames import FrameReader
from core.settings.home import Home

if TYPE_CHECKING:
    from core.cli.agent_pushing import Pushing
    from core.cli.agent_requests import Requests

_READ_BYTES = 1 << 16
_FIRST_PERIOD_S = 0.25
_LATER = "Try again in a moment."
_MOST_AT_ONCE = 32
_decode = msgspec.msgpack.Decoder(said.Asked).decode


class Watching:
    """Pushes telemetry of the host while it is wanted. A thread of its own while that is so."""

    def __init__(self, folder: Path, line: Line) -> None:
        self._folder = folder
        self._line = line
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, period_s: float) -> None:
        """Push readings from now on, or end it with 0."""
        with self._changing:
            self._stop.set()
            if self._thread is not None:
                self._thread.join()
                self._thread = None
            if period_s <= 0:
                return
            stop = self._stop = threading.Event()
            self._thread = threading.Thread(target=self._loop, args=(stop, period_s), name="telemetry", daemon=True)
            self._thread.start()

    def _loop(self, stop: threading.Event, period_s: float) -> None:
        from core.hardware.host import HostReader

        host = HostReader(self._folder)
        # At once, without what drivers of GPUs tell (loading them takes longer) and without rates, which need an interval.
        self._line.send(said.Readings(ts=time.time(), values=host.read(time.monotonic())))
        host.close()
        from core.hardware.sampler import HostSampler

        sampler = HostSampler(self._folder)
        try:
            stop.wait(min(_FIRST_PERIOD_S, period_s))
            while not stop.is_set() and not self._line.is_closed:
                self._line.send(said.Readings(ts=time.time(), values=sampler.sample()))
                stop.wait(period_s)
        finally:
            sampler.close()


class Agent:
    """Reads requests until the input ends."""

    def __init__(self, home: Home, line: Line) -> None:
        self._home = home
        self._line = line
        self._making = threading.Lock()
        self._made: tuple[Requests, Pushing] | None = None
        self._watching = Watching(home.path, line)
        self._places = threading.Semaphore(_MOST_AT_ONCE)

    def serve(self, descriptor: int) -> None:
        """Answer until the input ends or is damaged."""
        reader = FrameReader()
        while not self._line.is_closed and (data := os.read(descriptor, _READ_BYTES)):
            try:
                asked = [_decode(payload) for payload in reader.feed(data)]
            except (PilothouseError, msgspec.MsgspecError) as error:
                self._line.send(said.Answered(number=-1, body=_fault(error)))
                break
            for one in asked:
                self._take(one)
        self._line.close()
        if self._made is not None:
            self._made[0].close()

    def _take(self, asked: said.Asked) -> None:
        if isinstance(asked.body, said.Credit):
            self._line.credit(asked.body.amount)
            return
        if isinstance(asked.body, said.Ping):  # at once, whatever else goes on: it measures the way, and the clock
            self._line.send(said.Answered(number=asked.number, body=said.Pong(ts=time.time())))
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
            body = _fault(error)
        finally:
            self._places.release()
        try:
            self._line.send(said.Answered(number=asked.number, body=body))
        except ValueError as error:  # it fits into no frame, and whoever waits for it must be told
            self._line.send(said.Answered(number=asked.number, body=_fault(error)))

    def _now(self, request: said.AnyRequest) -> said.AnyAnswer:
        match request:
            case said.Telemetry():
                self._watching.watch(request.period_s)
            case said.Follow():
                self._parts()[1].follow(request)
            case said.Unfollow():
                self._parts()[1].unfollow(request.run_id)
            case _:
                return self._parts()[0].answer(request)
        return said.Done()

    def _parts(self) -> tuple[Requests, Pushing]:
        """Return what knows of runs; made when first needed, as readings of the host should not wait for its imports."""
        with self._making:
            if self._made is None:
                from core.cli.agent_pushing import Pushing
                from core.cli.agent_requests import Requests

                requests = Requests(self._home)
                self._made = requests, Pushing(requests, self._line)
            return self._made


def _fault(error: Exception) -> said.Refused:
    """Return the answer for a fault of ours: one that no request should bring about."""
    kind = "cannot read what it is asked" if isinstance(error, msgspec.MsgspecError) else "failed"
    return said.Refused(message=f"The host's agent {kind}: {type(error).__name__}: {error}", is_environment=True)


def version() -> str:
    """Return the version of the worker package that this code belongs to, or of Pilothouse itself.

    Read off the names of the packages' metadata folders: ``importlib.metadata`` takes as long as all else here.
    """
    for name in ("pilothouse_worker", "pilothouse"):
        for entry in sys.path:
            for found in Path(entry).glob(f"{name}-*.dist-info"):
                return found.name.removesuffix(".dist-info").partition("-")[2]
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
