"""Programs on this machine: kept open with their input and output, or read to their end within limits."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import time
from collections.abc import Callable

from core.contracts.errors import EnvironmentProblem

_CHUNK = 1 << 18


class LocalProcess:
    """A program on this machine; see ``core.contracts.links.RemoteProcess``."""

    def __init__(self, process: subprocess.Popen[bytes], forget: Callable[[], None]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout
        self._forget = forget

    def write(self, data: bytes) -> None:
        """Hand all of ``data`` to its input."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._input.write(left) :]
        except (OSError, ValueError) as error:
            raise EnvironmentProblem(
                "The program reads no more input.", "It may have ended; look at its log."
            ) from error

    def read(self, limit: int, timeout_s: float | None = None) -> bytes:
        """Return what it printed; empty at its end. TimeoutError when nothing came."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._output, selectors.EVENT_READ)
                if not selector.select(timeout_s):
                    raise TimeoutError(f"nothing came within {timeout_s} s")
                return self._output.read(limit) or b""
        except TimeoutError:
            raise
        except (OSError, ValueError):  # closed meanwhile
            return b""

    def close_input(self) -> None:
        """Tell it that no more input comes."""
        with contextlib.suppress(OSError):
            self._input.close()

    def close(self) -> None:
        """Let go of it. Never raises."""
        self._forget()

    @property
    def code(self) -> int | None:
        """Exit status once it ended, else None."""
        code = self._process.poll()
        return code if code is not None and code >= 0 else None


def feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Write all to a program's input and close it; one that does not want its input ends this silently."""
    pipe = process.stdin
    if pipe is None:
        return
    with contextlib.suppress(OSError, ValueError):
        left = memoryview(data)
        while left:
            left = left[pipe.write(left) :]
    with contextlib.suppress(OSError):
        pipe.close()


def read_to_end(process: subprocess.Popen[bytes], deadline: float, limit: int) -> tuple[bytes, bytes] | None:
    """Return both outputs; None when time is up, and the program is then killed."""
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in kept:
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and (process.poll() is None or selector.select(0.2)):
            if time.monotonic() > deadline:
                process.kill()
                return None
            for key, _ in selector.select(0.05):
                pipe = next(one for one in kept if one is key.fileobj)
                data = pipe.read(_CHUNK) if pipe is not None else b""
                if data:
                    kept[pipe].extend(data[: max(0, limit - len(kept[pipe]))])
                else:
                    selector.unregister(key.fileobj)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return bytes(kept[process.stdout]), bytes(kept[process.stderr])
