"""A window onto a log file of any size: bytes in, bounded display lines out.

Chunks arrive in order at the end (``append``) or before the start (``prepend``). Escape codes are removed, a line that
overwrites itself with carriage returns shows its last state, and an endless line is cut at a stated length, so that
neither a gigabyte of log nor one line of 100 MB costs more than what is shown. Nothing here knows Qt.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from core.contracts.runs import LogChunk

MAX_LINES = 20_000
MAX_LINES_WITH_HISTORY = 100_000
MAX_LINE_CHARS = 2_000

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChange:
    """What the view must do: replace its last (still open) line or not, append lines, remove lines at the top.

    Attributes:
        replaces_last: The first of ``lines`` takes the place of the last line shown.
        lines: Display lines, in order.
        num_removed_first: Lines to remove at the top after that.
    """

    replaces_last: bool = False
    lines: tuple[str, ...] = ()
    num_removed_first: int = 0


def display_line(raw: str, num_hidden: int = 0) -> str:
    """Return a line as shown: without escape codes, after its last carriage return, cut where it is endless."""
    text = raw.rstrip("\r")
    if "\r" in text:
        text = text.rpartition("\r")[2] or text
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    text = _CONTROL.sub("\ufffd", text)
    hidden = num_hidden + max(len(text) - MAX_LINE_CHARS, 0)
    return f"{text[:MAX_LINE_CHARS]} … ({hidden} more characters in this line)" if hidden else text


class LogLines:
    """The part of a log that is shown. Thread: one at a time.

    Attributes:
        start: Byte offset of the first line shown; 0 when nothing is left before it.
        end: Byte offset to read on from.
        max_lines: Lines kept; the oldest go first.
    """

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        self.start = 0
        self.end = 0
        self.max_lines = max_lines
        self._sizes: deque[int] = deque()
        self._open = ""
        self._num_open_hidden = 0
        self._open_bytes = 0
        self._has_open = False

    def __len__(self) -> int:
        return len(self._sizes) + self._has_open

    def reset(self, chunk: LogChunk) -> tuple[str, ...]:
        """Show only this chunk; a line torn at its start is left out. Returns the lines."""
        text, torn = _without_torn_line(chunk)
        self.__init__(self.max_lines)
        self.start = self.end = chunk.start + torn
        return self.append(LogChunk(text=text, start=self.end, end=chunk.end, total=chunk.total)).lines

    def append(self, chunk: LogChunk) -> LogChange:
        """Take in the chunk that begins at ``end``."""
        if not chunk.text:
            return LogChange()
        replaces = self._has_open
        *whole, rest = chunk.text.split("\n")
        lines = [self._close_line(line) for line in whole]
        if rest:
            self._extend_open(rest)
            lines.append(display_line(self._open, self._num_open_hidden))
        self.end = chunk.end
        return LogChange(replaces_last=replaces, lines=tuple(lines), num_removed_first=self._trim())

    def prepend(self, chunk: LogChunk) -> tuple[str, ...]:
        """Take in the chunk that ends at ``start``; returns the lines to put on top. Older lines are then kept."""
        self.max_lines = MAX_LINES_WITH_HISTORY
        text, torn = _without_torn_line(chunk)
        raw = text.removesuffix("\n").split("\n") if text else []
        self._sizes.extendleft(len(line.encode("utf-8", "replace")) + 1 for line in reversed(raw))
        self.start = chunk.start + torn
        return tuple(display_line(line) for line in raw)

    def _close_line(self, line: str) -> str:
        self._extend_open(line)
        shown = display_line(self._open, self._num_open_hidden)
        self._sizes.append(self._open_bytes + 1)
        self._open, self._num_open_hidden, self._open_bytes, self._has_open = "", 0, 0, False
        return shown

    def _extend_open(self, text: str) -> None:
        self._has_open = True
        self._open_bytes += len(text.encode("utf-8", "replace"))
        kept = self._open + text
        # Four times the shown length leaves room for escape codes; the rest of an endless line is only counted.
        limit = 4 * MAX_LINE_CHARS
        if len(kept) > limit and "\r" in kept:
            kept = kept[kept.rfind("\r", 0, len(kept) - 1) :]
        self._num_open_hidden += max(len(kept) - limit, 0)
        self._open = kept[:limit]

    def _trim(self) -> int:
        surplus = max(len(self._sizes) - self.max_lines, 0)
        for _ in range(surplus):
            self.start += self._sizes.popleft()
        return surplus


def _without_torn_line(chunk: LogChunk) -> tuple[str, int]:
    """Return the text without a line that began before the chunk, and the bytes left out."""
    if chunk.start == 0:
        return chunk.text, 0
    torn, newline, rest = chunk.text.partition("\n")
    if not newline or not rest:
        return chunk.text, 0
    return rest, len(torn.encode("utf-8", "replace")) + 1
