"""Reads a growing text file from where it last stopped: half lines wait, truncation and replacement start anew."""

from __future__ import annotations

from pathlib import Path


class FollowedFile:
    """A file that another process appends to.

    Args:
        path: The file; it may come into being later.
        offset: Bytes to skip at first.
        limit_bytes: At most this much is read at a time.
    """

    def __init__(self, path: Path, offset: int = 0, limit_bytes: int = 1 << 20) -> None:
        self.path = path
        self._offset = offset
        self._limit = limit_bytes
        self._inode: int | None = None
        self.restarted = False

    def read(self) -> bytes:
        """Return what was appended since the last call; empty when nothing was. Sets ``restarted`` on truncation."""
        self.restarted = False
        try:
            with self.path.open("rb") as file:
                self._notice_replacement(file.fileno())
                file.seek(self._offset)
                data = file.read(self._limit)
        except OSError:
            return b""
        self._offset += len(data)
        return data

    def _notice_replacement(self, descriptor: int) -> None:
        import os

        status = os.fstat(descriptor)
        replaced = self._inode is not None and status.st_ino != self._inode
        if replaced or status.st_size < self._offset:
            self._offset = 0
            self.restarted = True
        self._inode = status.st_ino


class FollowedLines:
    """Complete lines of a followed file; the beginning of an unfinished one is kept for the next call."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._file = FollowedFile(path, offset)
        self._rest = b""

    def read(self) -> tuple[list[str], bool]:
        """Return new complete lines without their ends, and whether the file started anew."""
        data = self._file.read()
        if self._file.restarted:
            self._rest = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 1 << 20:
            self._rest = b""
        return [line.decode("utf-8", errors="replace").rstrip("\r") for line in lines], self._file.restarted
