"""A link to a host: the one way in which anything is done there. ``core.ssh`` has it over SSH, and for this machine.

No text given here is ever interpreted by a shell: arguments are quoted whole, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A command that ended.

    Attributes:
        code: Exit status; None when the host did not tell (killed by a signal, or the connection was lost).
        stdout: Its first bytes, up to the limit asked for; ``stderr`` likewise.
    """

    code: int | None
    stdout: bytes
    stderr: bytes


class RemoteProcess(Protocol):
    """A program running on a host, with its standard input and output. Thread-safe for one reader and one writer."""

    def write(self, data: bytes) -> None:
        """Hand all of ``data`` to its input; blocks. EnvironmentProblem when the link is lost."""
        ...

    def read(self, limit: int, timeout_s: float | None = None) -> bytes:
        """Return what it printed, up to ``limit`` bytes; empty at its end or when the link is lost.

        Raises:
            TimeoutError: Nothing came within ``timeout_s``.
        """
        ...

    def close_input(self) -> None:
        """Tell it that no more input comes."""
        ...

    def close(self) -> None:
        """Let go of it; it is told by the end of its input. Never raises."""
        ...

    @property
    def code(self) -> int | None:
        """Exit status once it ended, else None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """What is known of a file: size in bytes, modification time in Unix seconds, and whether it is a folder."""

    name: str
    size: int
    mtime: float
    is_dir: bool = False
    mode: int = 0o644


class Link(Protocol):
    """An open connection to one host. Thread-safe; everything blocks: never on the UI thread.

    Every method raises ``EnvironmentProblem`` when the link is lost and ``Cancelled`` when it was closed meanwhile.
    """

    @property
    def name(self) -> str:
        """Name of the host."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        timeout_s: float = 60.0,
        limit_bytes: int = 4 << 20,
    ) -> Completed:
        """Run a command to its end.

        Raises:
            EnvironmentProblem: The link is lost, or the command took longer than ``timeout_s`` (it is let go of).
        """
        ...

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = "") -> RemoteProcess:
        """Start a program whose input and output are kept; its stderr joins nothing and is dropped."""
        ...

    def home(self) -> str:
        """Return the user's home folder on the host, absolute."""
        ...

    def stat(self, path: str) -> RemoteFile | None:
        """Return what is known of a file; None when it is not there."""
        ...

    def listdir(self, path: str) -> list[RemoteFile]:
        """Return what is in a folder; FileNotFoundError when it is not there."""
        ...

    def makedirs(self, path: str) -> None:
        """Make a folder and those above it."""
        ...

    def read(self, path: str, offset: int = 0, limit: int = 1 << 20) -> bytes:
        """Return up to ``limit`` bytes of a file from ``offset``; FileNotFoundError when it is not there."""
        ...

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file as a whole, by rename."""
        ...

    def put(self, local_path: str, path: str, on_bytes: Callable[[int], None] | None = None) -> None:
        """Copy a file there; goes on where a cut left it, and verifies the whole by hash.

        Args:
            local_path: The file here.
            path: Its place there; replaced by rename once it is whole.
            on_bytes: Called with the number of bytes done; what it raises ends the copy.
        """
        ...

    def get(self, path: str, local_path: str, on_bytes: Callable[[int], None] | None = None) -> None:
        """Copy a file here; as ``put``."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing happens when it is not there."""
        ...

    def is_alive(self) -> bool:
        """Return whether the link was in order when last looked at; does not ask the host."""
        ...

    def probe(self, timeout_s: float = 5.0) -> float:
        """Ask the host for a sign of life and return the round trip in seconds; EnvironmentProblem when none comes."""
        ...

    def close(self) -> None:
        """Close the connection; whatever waits on it ends. Never raises."""
        ...
