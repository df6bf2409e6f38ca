"""Files of a host over SFTP: small ones as a whole, big ones with resume and a hash that is compared at the end.

One SFTP channel serves all small requests in turn; each copy has a channel of its own, so a large one holds nobody
up. Paths are sent as the bytes they are; nothing in them is interpreted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.contracts.errors import EnvironmentProblem
from core.contracts.links import RemoteFile
from core.ssh.channels import Channels

REQUEST_TIMEOUT_S = 30.0
PREFETCH = 256
"""Read requests under way at once: fewer make paramiko sleep, unlimited ones hang some servers."""
_CHUNK = 1 << 18
_SMALL = 1 << 15
_OPENDIR, _READDIR, _CLOSE = 11, 12, 4


class Files:
    """SFTP on one connection. Threads: any."""

    def __init__(self, name: str, channels: Channels) -> None:
        self._name = name
        self._channels = channels
        self._lock = threading.Lock()
        self._client: Any = None
        self._channel: Any = None

    @contextmanager
    def _shared(self) -> Generator[Any]:
        """Yield the client for small requests; it is dropped after a failure that leaves it out of step."""
        with self._lock:
            if self._client is None:
                self._channel, self._client = self._opened()
            try:
                with self._channels.guarded():
                    yield self._client
            except (EnvironmentProblem, UnicodeError):
                self._channels.release(self._channel)
                self._client = None
                raise

    @contextmanager
    def own(self) -> Generator[Any]:
        """Yield a client for one copy."""
        channel, client = self._opened()
        try:
            with self._channels.guarded():
                yield client
        finally:
            self._channels.release(channel)

    def _opened(self) -> tuple[Any, Any]:
        from paramiko import SFTPClient, SSHException

        channel = self._channels.open()
        try:
            with self._channels.guarded():
                channel.settimeout(REQUEST_TIMEOUT_S)
                try:
                    channel.invoke_subsystem("sftp")
                    return channel, SFTPClient(channel)
                except (SSHException, EOFError) as error:
                    if not self._channels.is_active():
                        raise
                    raise EnvironmentProblem(
                        f"The SSH server of {self._name} does not offer SFTP.",
                        "Add the line 'Subsystem sftp internal-sftp' to its sshd_config.",
                    ) from error
        except BaseException:
            self._channels.release(channel)
            raise

    def stat(self, path: str) -> RemoteFile | None:
        """Return what is known of a file; None when it is not there."""
        with self._explained(path), self._shared() as client:
            try:
                return _described(_name_of(path), client.stat(raw(path)))
            except FileNotFoundError:
                return None

    def listdir(self, path: str) -> list[RemoteFile]:
        """Return what is in a folder, links followed; FileNotFoundError when it is not there."""
        with self._explained(path), self._shared() as client:
            found: list[RemoteFile] = []
            for name, attributes in _entries(client, raw(path)):
                shown = attributes
                if stat.S_ISLNK(attributes.st_mode or 0):
                    with contextlib.suppress(OSError):  # a link to nowhere stands for itself
                        shown = client.stat(raw(path).rstrip(b"/") + b"/" + name)
                found.append(_described(os.fsdecode(name), shown))
            return found

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Return up to ``limit`` bytes from ``offset``; FileNotFoundError when there is no such file."""
        with self._explained(path), self._shared() as client, client.open(raw(path), "rb") as file:
            if limit <= _SMALL:
                file.seek(offset)
                return bytes(file.read(limit))
            wanted = min(limit, (file.stat().st_size or 0) - offset)
            if wanted <= 0:
                return b""
            return b"".join(file.readv([(offset, wanted)], PREFETCH))

    def write(self, path: str, data: bytes, mode: int) -> None:
        """Replace a file as a whole, by rename."""
        part = f"{path}.{secrets.token_hex(4)}.part"
        with self._explained(path), self._shared() as client:
            try:
                with client.open(raw(part), "wb") as file:
                    file.chmod(mode)
                    send(file, memoryview(data))
                client.posix_rename(raw(part), raw(path))
            except BaseException:
                with contextlib.suppress(OSError, EOFError):
                    client.remove(raw(part))
                raise

    def upload(self, local: Path, part: str, mode: int, on_bytes: Callable[[int], None]) -> None:
        """Bring ``part`` up to the whole of ``local``, going on where it ends."""
        size = local.stat().st_size
        with self._explained(part), self.own() as client, local.open("rb") as source:
            done = _size(client, part)
            if done > size:
                done = 0
            with client.open(raw(part), "r+b" if done else "wb") as target:
                target.chmod(mode)
                source.seek(done)
                target.seek(done)
                on_bytes(done)
                while block := source.read(_CHUNK):
                    done += len(block)
                    send(target, memoryview(block), is_last=done >= size)
                    on_bytes(done)

    def download(self, path: str, part: Path, size: int, on_bytes: Callable[[int], None]) -> None:
        """Bring ``part`` here up to the first ``size`` bytes of a file, going on where it ends."""
        with self._explained(path), self.own() as client, part.open("ab") as target:
            done = target.tell()
            if done > size:
                target.truncate(0)
                done = 0
            on_bytes(done)
            with client.open(raw(path), "rb") as source:
                source.seek(done)
                source.prefetch(size, PREFETCH)
                while done < size and (block := source.read(min(_CHUNK, size - done))):
                    target.write(block)
                    done += len(block)
                    on_bytes(done)
            target.flush()
            os.fsync(target.fileno())

    def rename(self, part: str, path: str) -> None:
        """Put ``part`` in the place of ``path``."""
        with self._explained(path), self._shared() as client:
            client.posix_rename(raw(part), raw(path))

    @contextmanager
    def _explained(self, path: str) -> Generator[None]:
        """Raise what SFTP says of a file as a sentence; a missing file stays FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "There is no such file", path) from None
        except PermissionError as error:
            raise EnvironmentProblem(
                f"{path} on {self._name} may not be used by this user.", "Check the permissions of it and its folder."
            ) from error
        except OSError as error:
            raise EnvironmentProblem(
                f"{path} on {self._name} could not be read or written: {str(error).lower() or 'failure'}.",
                "Look for free space, quota, and whether a folder is where a file should be.",
            ) from error


def send(file: Any, data: memoryview, *, is_last: bool = True) -> None:
    """Write without waiting for each answer; with ``is_last`` every answer is waited for, so that failures show."""
    file.set_pipelined(True)
    for start in range(0, len(data), _SMALL):
        if is_last and start + _SMALL >= len(data):
            file.set_pipelined(False)
        file.write(bytes(data[start : start + _SMALL]))


def raw(path: str) -> bytes:
    """Return the bytes of a path; names that are not UTF-8 come and go as surrogates."""
    return path.encode("utf-8", "surrogateescape")


def _size(client: Any, path: str) -> int:
    try:
        return int(client.stat(raw(path)).st_size or 0)
    except FileNotFoundError:
        return 0


def _name_of(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _described(name: str, attributes: Any) -> RemoteFile:
    mode = attributes.st_mode or 0
    return RemoteFile(
        name=name,
        size=int(attributes.st_size or 0),
        mtime=float(attributes.st_mtime or 0),
        is_dir=stat.S_ISDIR(mode),
        mode=stat.S_IMODE(mode),
    )


def _entries(client: Any, path: bytes) -> list[tuple[bytes, Any]]:
    """Read a folder; paramiko's own way fails for the whole of it at one name that is not UTF-8."""
    from paramiko.sftp_attr import SFTPAttributes

    attributes_of: Any = SFTPAttributes
    _, answer = client._request(_OPENDIR, path)  # noqa: SLF001 - see above
    handle = answer.get_binary()
    found: list[tuple[bytes, Any]] = []
    try:
        while True:
            _, answer = client._request(_READDIR, handle)  # noqa: SLF001
            for _ in range(answer.get_int()):
                name = answer.get_binary()
                answer.get_binary()
                attributes = attributes_of._from_msg(answer)  # noqa: SLF001
                if name not in {b".", b".."}:
                    found.append((name, attributes))
    except EOFError:
        return found
    finally:
        client._request(_CLOSE, handle)  # noqa: SLF001
