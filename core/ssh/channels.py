"""Commands on the channels of one connection: run to their end, or kept open with their input and output.

Both outputs are read as they come, so neither can fill up and stop the command. At most ``MAX_CHANNELS`` are open at
once; servers that allow fewer are waited for. Threads: any.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from core.contracts.errors import Cancelled, EnvironmentProblem
from core.contracts.links import Completed
from core.ssh.problems import Unreachable

MAX_CHANNELS = 8
"""sshd allows 10 (MaxSessions); some are left for what the user does by hand over a shared connection."""
STUCK_S = 900.0
"""A program that takes in nothing for so long hangs; a frozen host acknowledges what it is sent for ever."""
_CHUNK = 1 << 16
_OPEN_TIMEOUT_S = 20.0
_LINGER_S = 0.5
"""How long output is awaited after the exit status: a child left in the background may hold it open for ever."""


class Channels:
    """The channels of one transport."""

    def __init__(self, name: str, transport: Any) -> None:
        self._name = name
        self._transport = transport
        self._free = threading.BoundedSemaphore(MAX_CHANNELS)
        self.is_closed = False

    def is_active(self) -> bool:
        """Return whether the connection stands, as far as is known."""
        return not self.is_closed and bool(self._transport.is_active())

    def lost(self) -> EnvironmentProblem | Cancelled:
        """Return what to raise when something on the connection failed."""
        if self.is_closed:
            return Cancelled()
        return Unreachable(
            f"The connection to {self._name} was lost.", "It is tried again by itself; what runs there goes on."
        )

    @contextmanager
    def guarded(self) -> Generator[None]:
        """Raise what paramiko raises on a lost or stuck connection as one of ours."""
        from paramiko import SSHException

        try:
            yield
        except TimeoutError as error:
            raise self.silent() from error
        except (SSHException, EOFError, ConnectionError, OSError) as error:
            if not self.is_active() or not isinstance(error, OSError) or isinstance(error, ConnectionError):
                raise self.lost() from error
            if error.errno is None and "closed" in str(error).lower():
                raise self.lost() from error
            raise

    def silent(self) -> EnvironmentProblem | Cancelled:
        """Return what to raise when the host takes too long."""
        if not self.is_active():
            return self.lost()
        return Unreachable(f"{self._name} does not answer any more.", "It may hang or be overloaded; try again later.")

    def open(self, timeout_s: float = _OPEN_TIMEOUT_S) -> Any:
        """Return a session channel; give it back with ``release``.

        Raises:
            EnvironmentProblem: The connection is lost, or all channels stayed in use for ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while not self._free.acquire(timeout=0.1):
            if not self.is_active():
                raise self.lost()
            if time.monotonic() > deadline:
                raise self._busy()
        try:
            return self._opened(deadline)
        except BaseException:
            self._free.release()
            raise

    def _opened(self, deadline: float) -> Any:
        from paramiko import SSHException

        while True:
            try:
                return self._transport.open_session(timeout=max(1.0, deadline - time.monotonic()))
            except (SSHException, EOFError, OSError) as error:
                if not self.is_active():
                    raise self.lost() from error
                if "Timeout" in str(error):
                    raise self.silent() from error
                if time.monotonic() > deadline:
                    raise self._busy() from error
            # The server allows fewer than we do: one of ours will end. Which exception says so depends on chance:
            # paramiko has one place for the exceptions of all threads.
            time.sleep(0.05)

    def release(self, channel: Any) -> None:
        """Close a channel; never raises."""
        with contextlib.suppress(Exception):
            channel.close()
        self._free.release()

    def _busy(self) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"{self._name} allows no further session on this connection.",
            "Try again later, or raise MaxSessions in its sshd_config.",
        )

    def run(self, command: bytes, stdin: bytes, timeout_s: float, limit_bytes: int) -> Completed:
        """Run a command to its end; see ``Link.run``."""
        deadline = time.monotonic() + timeout_s
        channel = self.open(min(timeout_s, _OPEN_TIMEOUT_S))
        try:
            with self.guarded():
                channel.settimeout(timeout_s)
                channel.exec_command(command)
            if stdin:
                feeder = threading.Thread(target=_feed, args=(channel, stdin), name="ssh-stdin", daemon=True)
                feeder.start()
            else:
                with contextlib.suppress(OSError, EOFError):
                    channel.shutdown_write()
            outputs = _Outputs(channel, limit_bytes)
            with self.guarded():
                has_ended = outputs.read_to_end(deadline, self.is_active)
            if not has_ended:
                if not self.is_active():
                    raise self.lost()
                raise EnvironmentProblem(
                    f"A command on {self._name} took longer than {timeout_s:g} s.", "The host may be overloaded."
                )
            code = channel.exit_status if channel.exit_status_ready() else -1
            if code < 0 and not self.is_active():
                raise self.lost()
            return Completed(code=code if code >= 0 else None, stdout=outputs.stdout, stderr=outputs.stderr)
        finally:
            self.release(channel)


class _Wake(threading.Event):
    """Set by paramiko when bytes come; only we reset it, so that none are overlooked."""

    def clear(self) -> None:
        """Do nothing: paramiko clears when one of two buffers is empty."""

    def rearm(self) -> None:
        """Forget that it was set."""
        super().clear()


class _Outputs:
    """Both outputs of a command, up to a limit each; the rest is read and dropped."""

    def __init__(self, channel: Any, limit_bytes: int) -> None:
        self._channel = channel
        self._limit = limit_bytes
        self._wake = _Wake()
        self._kept: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        channel.in_buffer.set_event(self._wake)
        channel.in_stderr_buffer.set_event(self._wake)

    @property
    def stdout(self) -> bytes:
        return bytes(self._kept[0])

    @property
    def stderr(self) -> bytes:
        return bytes(self._kept[1])

    def read_to_end(self, deadline: float, is_active: Callable[[], bool]) -> bool:
        """Return whether the command ended; False when time is up or the connection lost."""
        ended_at: float | None = None
        while True:
            self._wake.rearm()
            if self._drain():
                continue
            now = time.monotonic()
            if self._channel.exit_status_ready():
                ended_at = ended_at or now
                if self._channel.eof_received or self._channel.closed or now > ended_at + _LINGER_S:
                    return True
            elif not is_active() or now > deadline:
                return False
            if self._channel.eof_received:
                self._channel.status_event.wait(min(0.2, max(0.0, deadline - now)))
            else:
                self._wake.wait(min(0.05, max(0.001, deadline - now)))

    def _drain(self) -> bool:
        readers = (
            (self._channel.recv_ready, self._channel.recv, self._kept[0]),
            (self._channel.recv_stderr_ready, self._channel.recv_stderr, self._kept[1]),
        )
        has_read = False
        for is_ready, receive, kept in readers:
            if is_ready():
                data = receive(_CHUNK)
                kept.extend(data[: max(0, self._limit - len(kept))])
                has_read = has_read or bool(data)
        return has_read


def _feed(channel: Any, data: bytes) -> None:
    """Write all; a command that does not want its input ends this silently."""
    with contextlib.suppress(OSError, EOFError):
        channel.sendall(data)
        channel.shutdown_write()


class SshProcess:
    """A program on a host; see ``core.contracts.links.RemoteProcess``."""

    def __init__(self, channels: Channels, command: bytes) -> None:
        self._channels = channels
        self._channel = channels.open()
        self._is_released = False
        self._lock = threading.Lock()
        try:
            with channels.guarded():
                self._channel.settimeout(_OPEN_TIMEOUT_S)
                self._channel.exec_command(command)
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """Hand all of ``data`` to its input; EnvironmentProblem when the link is lost or it reads no more."""
        left = memoryview(data)
        took_last = time.monotonic()
        while left:
            try:
                sent = self._channel.send(left[:_CHUNK])
            except TimeoutError as error:  # the reader's time limit: the two share it
                if time.monotonic() - took_last > STUCK_S:
                    raise self._channels.silent() from error
                continue
            except (OSError, EOFError) as error:
                raise self._ended() from error
            if sent == 0:
                raise self._ended()
            left = left[sent:]
            took_last = time.monotonic()

    def read(self, limit: int, timeout_s: float | None = None) -> bytes:
        """Return what it printed; empty at its end or when the link is lost. TimeoutError when nothing came."""
        self._channel.settimeout(timeout_s)
        try:
            return bytes(self._channel.recv(limit))
        except TimeoutError as error:
            raise TimeoutError(f"nothing came within {timeout_s} s") from error
        except (OSError, EOFError):  # recv also sends: it tells the host that there is room again
            return b""

    def close_input(self) -> None:
        """Tell it that no more input comes."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def close(self) -> None:
        """Let go of it. Never raises."""
        with self._lock:
            was_released, self._is_released = self._is_released, True
        if not was_released:
            self._channels.release(self._channel)

    @property
    def code(self) -> int | None:
        """Exit status once it ended, else None."""
        if not self._channel.exit_status_ready() or self._channel.exit_status < 0:
            return None
        return int(self._channel.exit_status)

    def _ended(self) -> EnvironmentProblem | Cancelled:
        if self._is_released or not self._channels.is_active():
            return self._channels.lost()
        return EnvironmentProblem("The program on the host reads no more input.", "It may have ended; look at its log.")
