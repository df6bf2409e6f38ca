"""The measuring process: ``python -P -m core.infer.measuring.process``. One model, one backend, one thread pool.

Requests come on standard input, answers go to standard output; whatever the library prints there goes to standard
error instead. It ends when its standard input ends, so it never outlives the benchmark.
"""

from __future__ import annotations

import gc
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from core.contracts.errors import EnvironmentProblem, PilothouseError
from core.infer.backend import LoadOptions, Session, backend_named
from core.infer.measuring.messages import (
    Answer,
    AnyRequest,
    Burst,
    BurstRequest,
    Loaded,
    LoadRequest,
    Refused,
    Scored,
    ScoreRequest,
    Warmed,
    WarmRequest,
)
from core.runlog.arrays import LabelledArrays, read_arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WINDOW = 20
_SETTLED = 0.05


class Measurement:
    """Holds the model and does what is asked. Thread: main."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._data: LabelledArrays | None = None
        self._sample = 0
        self._bound: dict[int, Callable[[], object]] = {}

    def answer(self, request: AnyRequest) -> Answer:
        """Do one request; a refusal is an answer too."""
        try:
            match request:
                case LoadRequest():
                    return self._load(request)
                case ScoreRequest():
                    return self._score(request.batch)
                case WarmRequest():
                    return self._warm(request.limit_s)
                case BurstRequest():
                    return self._burst(request)
        except PilothouseError as error:
            is_environment = isinstance(error, EnvironmentProblem)
            return Refused(message=error.message, hint=error.hint, is_environment=is_environment)

    def _load(self, request: LoadRequest) -> Loaded:
        self._data = read_arrays(Path(request.test_data))
        self._sample = request.sample
        backend = backend_named(request.backend)
        started = time.perf_counter()
        status = backend.status()
        if status.is_available:
            importlib.import_module(backend.library)
        imported = time.perf_counter()
        options = LoadOptions(threads=request.threads, precision=request.precision)
        self._session = backend.load(Path(request.model), options)
        loaded = time.perf_counter()
        self._call(1)()
        first = time.perf_counter()
        execution = self._session.execution
        return Loaded(
            version=status.version,
            import_s=imported - started,
            load_s=loaded - imported,
            first_s=first - loaded,
            executed=execution.precision,
            int8_layers=execution.int8_layers,
            layers=execution.layers,
        )

    def _samples(self, batch: int) -> NDArray[np.float32]:
        import numpy as np

        assert self._data is not None
        indices = (self._sample + np.arange(batch)) % len(self._data)
        return np.ascontiguousarray(self._data.x[indices])

    def _call(self, batch: int) -> Callable[[], object]:
        """Return the bound call for a batch size; only one is kept bound, as a request has one input."""
        if batch not in self._bound:
            assert self._session is not None
            self._bound = {batch: self._session.bind(self._samples(batch))}
        return self._bound[batch]

    def _score(self, batch: int) -> Scored:
        assert self._session is not None
        assert self._data is not None
        self._bound = {}
        correct = 0
        for start in range(0, len(self._data), batch):
            scores = self._session.infer(self._data.x[start : start + batch])
            correct += int((scores.argmax(axis=1) == self._data.y[start : start + batch]).sum())
        return Scored(correct=correct, samples=len(self._data))

    def _warm(self, limit_s: float) -> Warmed:
        call = self._call(1)
        deadline = time.perf_counter() + limit_s
        calls, last, settled_windows = 0, 0.0, 0
        while settled_windows < 2:
            window: list[int] = []
            for _ in range(_WINDOW):
                started = time.perf_counter_ns()
                call()
                window.append(time.perf_counter_ns() - started)
            calls += _WINDOW
            median = statistics.median(window)
            settled_windows = settled_windows + 1 if abs(median - last) <= _SETTLED * median else 0
            last = median
            if time.perf_counter() > deadline:
                break
        return Warmed(calls=calls, is_settled=settled_windows >= 2)

    def _burst(self, request: BurstRequest) -> Burst:
        call = self._call(request.batch)
        call()
        clock = time.perf_counter_ns
        wall: list[int] = []
        gc.disable()
        cpu = time.process_time_ns()
        began = before = clock()
        deadline = began + int(request.limit_s * 1e9)
        for _ in range(request.calls):
            before = clock()
            call()
            after = clock()
            wall.append(after - before)
            if after > deadline:
                break
        total = clock() - began
        cpu = time.process_time_ns() - cpu
        gc.enable()
        return Burst(wall_ns=wall, cpu_ns=cpu, total_ns=total, peak_rss_bytes=peak_rss_bytes())


def peak_rss_bytes() -> int | None:
    """Return the largest resident memory of this process; None where the system does not tell.

    Not ``getrusage``: its figure is inherited from the process that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    decoder = msgspec.json.Decoder(AnyRequest)
    measurement = Measurement()
    for line in requests:
        answers.write(msgspec.json.encode(measurement.answer(decoder.decode(line))) + b"\n")
        answers.flush()


def main() -> None:
    """Keep standard output for answers alone, then serve."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
