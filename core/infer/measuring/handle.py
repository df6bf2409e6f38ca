"""The benchmark's side of one measuring process: start it, ask it, end it.

Each variant gets a process of its own for honesty's sake: one thread pool each instead of three libraries' pools in one
process, a load time that no other library has paid part of, and a peak memory that is its own. Between its bursts
a process sleeps on its input.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import msgspec

import core
from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.worker import RunContext
from core.infer.measuring.messages import Answer, AnyAnswer, Refused, Request

_MODULE = "core.infer.measuring.process"
_POLL_S = 0.25
_END_S = 5.0

AnswerT = TypeVar("AnswerT", bound=Answer)


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a measuring process: fixed thread counts, and idle threads that sleep."""
    count = str(threads)
    fixed = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
    path = str(Path(core.__path__[0]).resolve().parent)
    return {**os.environ, **fixed, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path, "TORCH_CPP_LOG_LEVEL": "ERROR"}


class MeasuringProcess:
    """One measuring process. Thread: the worker's main thread.

    Args:
        name: Names the variant in errors.
        threads: CPU threads for one inference.
        context: The run; a stop of it ends any waiting with ``Cancelled``.
    """

    def __init__(self, name: str, threads: int, context: RunContext) -> None:
        self.name = name
        self._context = context
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(threads),
            cwd=context.run_dir,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"answers of {name}", daemon=True
        )
        self._reader.start()

    def _read(self, source: IO[bytes]) -> None:
        for line in source:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, request: Request, expected: type[AnswerT]) -> AnswerT:
        """Send a request and wait for its answer.

        Raises:
            UserError: The process refuses, or it died.
            EnvironmentProblem: The machine lacks what it needs.
            Cancelled: The run was asked to stop.
        """
        try:
            self._requests.write(msgspec.json.encode(request) + b"\n")
            self._requests.flush()
        except OSError as error:
            raise self._died() from error
        answer: Answer = msgspec.json.decode(self._wait(), type=AnyAnswer)
        if isinstance(answer, Refused):
            raise (EnvironmentProblem if answer.is_environment else UserError)(answer.message, answer.hint)
        assert isinstance(answer, expected)
        return answer

    def _wait(self) -> bytes:
        while True:
            try:
                line = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                if self._context.should_stop():
                    raise Cancelled from None
                continue
            if line is None:
                raise self._died()
            return line

    def _died(self) -> UserError:
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            status = None
        how = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
        return UserError(f"Measuring {self.name} ended unexpectedly ({how}).", "The log has what it printed last.")

    def close(self) -> None:
        """End the process: by the end of its input, else by force."""
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(0.2 if self._context.should_stop() else _END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> MeasuringProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
