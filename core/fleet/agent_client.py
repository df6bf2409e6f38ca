"""The near end of an agent: starts it over a link, asks it, and hands out what it pushes.

One thread reads its frames. Answers wake whoever asked; pushed messages go to their sinks on the reading thread. When the
channel ends, everybody who waits is told so in one sentence. It connects nothing and retries nothing: that is the pool's.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem, PilothouseError, UserError
from core.contracts.hosts import HostRecord
from core.contracts.links import Link, RemoteProcess
from core.fleet.worker_command import command_of
from core.runlog.frames import MARK, FrameReader, frame

AGENT_MODULE = "core.cli.agent"
READINGS_PERIOD_S = 1.0
_HELLO_LIMIT_S = 60.0
_READ_BYTES = 1 << 18
_CREDIT_BYTES = 512 << 10
_decode = msgspec.msgpack.Decoder(said.FromAgent).decode

AnswerT = TypeVar("AnswerT", bound=said.Answer)
FileSink = Callable[[said.OfRun], None]
ReadingsSink = Callable[[said.Readings], None]
CloseSink = Callable[[EnvironmentProblem], None]


class AgentClient:
    """A running agent. Thread-safe; everything blocks: never on the UI thread.

    Attributes:
        hello: How it introduced itself.
        clock_skew_s: Its clock minus ours; until the first ``ping`` too small by the way here.
        latency_s: Round trip of the latest ``ping``.
    """

    def __init__(self, host: str, process: RemoteProcess) -> None:
        self._host = host
        self._process = process
        self._numbers = itertools.count(1)
        self._writing = threading.Lock()
        self._state = threading.Condition()
        self._answers: dict[int, said.AnyAnswer | None] = {}
        self._sinks: dict[str, FileSink] = {}
        self._readings: ReadingsSink | None = None
        self._on_close: list[CloseSink] = []
        self._fault: EnvironmentProblem | None = None
        self._owed = 0
        self._hello: said.Hello | None = None
        self.clock_skew_s = 0.0
        self.latency_s: float | None = None
        self._thread = threading.Thread(target=self._loop, name=f"agent of {host}", daemon=True)

    @classmethod
    def start(cls, link: Link, record: HostRecord, sink: ReadingsSink | None = None) -> AgentClient:
        """Start the agent on a host and wait until it introduces itself.

        Args:
            link: The open connection.
            record: The host, with its Python environment.
            sink: Handed readings of the host from the start, as by ``telemetry``.

        Raises:
            UserError: The host has no Python environment for runs yet.
            EnvironmentProblem: It does not start, or is of a version that speaks otherwise.
        """
        argv = command_of(record.runtime, AGENT_MODULE, ["--home", record.work_dir])
        client = cls(record.name, link.start(argv))
        client._readings = sink
        client._begin(link, argv)
        return client

    def _begin(self, link: Link, argv: list[str]) -> None:
        greeting = MARK
        if self._readings is not None:  # read by the agent as soon as it is there: no round trip is spent on it
            asked = said.Asked(number=0, body=said.Telemetry(period_s=READINGS_PERIOD_S))
            greeting += frame(msgspec.msgpack.encode(asked))
        self._process.write(greeting)
        self._thread.start()
        with self._state:
            self._state.wait_for(lambda: self._hello is not None or self._fault is not None, _HELLO_LIMIT_S)
            hello, fault = self._hello, self._fault
        if hello is None:
            self.close()
            raise EnvironmentProblem(
                f"Pilothouse's agent does not start on {self._host}: {self._why(link, argv, fault)}",
                "Repair the host's Python environment: in the window under Hosts, or with: pilothouse hosts install "
                f"{self._host}",
            )
        if hello.protocol != said.PROTOCOL_VERSION:
            self.close()
            raise EnvironmentProblem(
                f"The worker package on {self._host} is of another version ({hello.version}).",
                f"Renew it: in the window under Hosts, or with: pilothouse hosts install {self._host}",
            )

    @staticmethod
    def _why(link: Link, argv: list[str], fault: EnvironmentProblem | None) -> str:
        """Return what a short trial of the same words prints to stderr: the agent's own stderr is not kept."""
        try:
            done = link.run([*argv, "--help"], timeout_s=_HELLO_LIMIT_S)
        except PilothouseError as error:
            return error.message
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        if done.code != 0 and lines:
            return lines[-1][:300]
        return "no answer in a minute." if fault is None else fault.message

    @property
    def hello(self) -> said.Hello:
        """How the agent introduced itself."""
        assert self._hello is not None
        return self._hello

    def is_alive(self) -> bool:
        """Return whether the channel was in order when last looked at."""
        return self._fault is None

    def on_close(self, sink: CloseSink) -> None:
        """Call ``sink`` once, on some thread, when the channel ends; at once when it has."""
        with self._state:
            if self._fault is None:
                self._on_close.append(sink)
                return
            fault = self._fault
        sink(fault)

    def ask(self, request: said.AnyRequest, expected: type[AnswerT], timeout_s: float = 60.0) -> AnswerT:
        """Ask something and wait for the answer.

        Args:
            request: What to ask.
            expected: Type of the answer.
            timeout_s: Longest wait in seconds.

        Raises:
            UserError: What was asked cannot be done so.
            EnvironmentProblem: The host is not as needed, the channel was lost, or no answer came in time.
        """
        number = next(self._numbers)
        with self._state:
            self._answers[number] = None
        try:
            self._send(said.Asked(number=number, body=request))
            with self._state:
                self._state.wait_for(lambda: self._answers[number] is not None or self._fault is not None, timeout_s)
                answer, fault = self._answers[number], self._fault
        finally:
            with self._state:
                self._answers.pop(number, None)
        if answer is None:
            raise fault or EnvironmentProblem(
                f"{self._host} did not answer within {timeout_s:g} s.", "Look at the host's load, then try again."
            )
        if isinstance(answer, said.Refused):
            raise (EnvironmentProblem if answer.is_environment else UserError)(answer.message, answer.hint)
        assert isinstance(answer, expected), answer
        return answer

    def ping(self, timeout_s: float = 10.0) -> float:
        """Return the round trip in seconds; sets ``latency_s`` and ``clock_skew_s``."""
        began_ts, began = time.time(), time.monotonic()
        pong = self.ask(said.Ping(), said.Pong, timeout_s)
        self.latency_s = time.monotonic() - began
        self.clock_skew_s = pong.ts - (began_ts + self.latency_s / 2)
        return self.latency_s

    def follow(self, run_id: str, nodes: tuple[str, ...], offsets: Mapping[str, int], sink: FileSink) -> None:
        """Hand what nodes of a run write beyond the offsets to ``sink``, on the reading thread, until ``unfollow``."""
        with self._state:
            self._sinks[run_id] = sink
        self.ask(said.Follow(run_id=run_id, nodes=nodes, offsets=dict(offsets)), said.Done)

    def unfollow(self, run_id: str) -> None:
        """Hand out no more of a run."""
        with self._state:
            self._sinks.pop(run_id, None)
        self.ask(said.Unfollow(run_id=run_id), said.Done)

    def telemetry(self, sink: ReadingsSink | None, period_s: float = READINGS_PERIOD_S) -> None:
        """Hand readings of the host to ``sink``, on the reading thread; None ends it."""
        self._readings = sink
        self.ask(said.Telemetry(period_s=period_s if sink is not None else 0.0), said.Done)

    def close(self) -> None:
        """Let the agent end. Never raises."""
        self._process.close()
        self._end(EnvironmentProblem(f"The connection to {self._host} was closed."))

    def _send(self, message: said.Asked) -> None:
        if self._fault is not None:
            raise self._fault
        data = frame(msgspec.msgpack.encode(message))
        with self._writing:
            self._process.write(data)

    def _loop(self) -> None:
        reader = FrameReader()
        fault = None
        try:
            while data := self._process.read(_READ_BYTES):
                for payload in reader.feed(data):
                    self._take(_decode(payload))
        except (PilothouseError, msgspec.MsgspecError) as error:
            fault = EnvironmentProblem(f"What {self._host} sends cannot be read: {error}")
        self._end(fault or self._lost(reader.chatter))

    def _lost(self, chatter: str) -> EnvironmentProblem:
        if self._hello is None and chatter:
            return EnvironmentProblem(f"It says: {chatter}")
        return EnvironmentProblem(f"The connection to {self._host} was lost.", "Runs there go on; try again.")

    def _take(self, message: said.FromAgent) -> None:
        match message:
            case said.Answered():
                with self._state:
                    if message.number in self._answers:
                        self._answers[message.number] = message.body
                    self._state.notify_all()
            case said.FileChunk() | said.CaughtUp() | said.Unread():
                if (sink := self._sinks.get(message.run_id)) is not None:
                    sink(message)
                if isinstance(message, said.FileChunk):
                    self._credit(len(message.data))
            case said.Readings():
                if (take := self._readings) is not None:
                    take(message)
            case said.Hello():
                with self._state:
                    self._hello = message
                    self.clock_skew_s = message.ts - time.time()
                    self._state.notify_all()

    def _credit(self, amount: int) -> None:
        """Tell the agent what has arrived, now and then: a frame for each small chunk would double the traffic."""
        self._owed += amount
        if self._owed >= _CREDIT_BYTES:
            self._send(said.Asked(number=0, body=said.Credit(amount=self._owed)))
            self._owed = 0

    def _end(self, fault: EnvironmentProblem) -> None:
        with self._state:
            if self._fault is not None:
                return
            self._fault = fault
            sinks, self._on_close = self._on_close, []
            self._state.notify_all()
        self._process.close()
        for sink in sinks:
            sink(fault)
