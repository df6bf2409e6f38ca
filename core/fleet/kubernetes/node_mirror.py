"""One node's part of the mirror: takes records from a pod's log and keeps byte-exact prefixes of the pod's files.

The size of a file here is the offset to go on from, so that a line read twice changes nothing. File names come from
the pod and are not trusted: only those that a node of a run has are written, and only inside the run directory. A piece
that the cluster threw away before it was read is filled with blanks, and said. One thread at a time.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.fleet.kubernetes.log_lines import Beat, Begin, End, Part, Piece, Record, unpacked
from core.runlog.layout import ENVIRONMENT, RunLayout

_MOST_PARTS = 4096
_MOST_OTHER_BYTES = 256 << 10


class MissingPiece(Exception):
    """A piece lies beyond the end of the file here: something before it has not been read."""


class OtherFiles(EnvironmentProblem):
    """The pod's run directory is not the one that the mirror is of."""


@dataclass(slots=True)
class _Parts:
    version: int = -1
    parts: dict[int, bytes] = field(default_factory=dict[int, bytes])


class NodeMirror:
    """The files of one node of a run, as they arrive."""

    def __init__(self, run_dir: Path, node: str, *, holds_exit: bool) -> None:
        """Begin or go on with a node's files.

        Args:
            run_dir: The mirror: the run directory on this machine.
            node: The node.
            holds_exit: Keep the exit record back until ``release``: the cluster may start the node again.
        """
        self._run_dir = run_dir
        self._layout = RunLayout(run_dir)
        self._holds_exit = holds_exit
        self._held: bytes | None = None
        self._parts: dict[str, _Parts] = {}
        self._token_file = run_dir / f"token.{node}"
        self._other_log = run_dir / f"pod.{node}.log"
        name = re.escape(node)
        self._grows = re.compile(
            rf"events\.{name}\.[A-Za-z0-9_-]{{1,32}}\.jsonl|telemetry\.{name}\.jsonl|stdout\.{name}\.(?:log|index)"
            rf"|supervisor\.{name}\.log"
        )
        self._is_small = re.compile(rf"(?:supervisor|exit)\.{name}\.json")
        self._node = node
        self.lost_bytes = 0
        self.ended = ""
        self.beats = 0
        self.last_other = ""
        self.version = ""

    def take(self, record: Record, *, fill: bool = False) -> bool:
        """Take one record; return whether a file here changed.

        Args:
            record: From the pod's log.
            fill: Write blanks in the place of what is missing, instead of raising.

        Raises:
            MissingPiece: Something before this piece has not been read.
            OtherFiles: The pod has begun anew with an empty run directory.
            EnvironmentProblem: It cannot be written here.
        """
        try:
            match record:
                case Begin():
                    self._check_token(record.token)
                    self.ended = ""
                    self.version = record.version[:100]
                    return False
                case Piece():
                    return self._append(record, fill=fill)
                case Part():
                    return self._collect(record)
                case Beat():
                    self.beats += 1
                    return self._touch()
                case End():
                    self.ended = record.state
                    return True
        except OSError as error:
            raise EnvironmentProblem(
                f"The run's files cannot be written to {str(self._run_dir)!r}: {error.strerror or error}.",
                "Free space there, or check the permissions.",
            ) from error

    def take_other(self, line: bytes) -> None:
        """Keep a line that is no record, such as an interpreter's complaint; the first 256 KiB of them."""
        text = line.decode(errors="replace").strip()
        if not text:
            return
        self.last_other = text[:400]
        with self._other_log.open("ab") as file:
            if file.tell() < _MOST_OTHER_BYTES:
                file.write(line[:4096].rstrip(b"\n") + b"\n")

    def release(self) -> bool:
        """Write the exit record that was kept back, if there is one."""
        self._holds_exit = False
        if self._held is None:
            return False
        self._replace(self._layout.exit_record(self._node), self._held)
        self._held = None
        return True

    @property
    def has_exit(self) -> bool:
        """True when how the node ended is known here."""
        return self._held is not None or self._layout.exit_record(self._node).exists()

    def stdout_bytes(self) -> int:
        """Return the size of the node's output here."""
        return _size(self._layout.stdout(self._node))

    def _check_token(self, token: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{16}", token):
            return
        if not self._token_file.exists():
            self._token_file.write_text(token, encoding="ascii")
        elif self._token_file.read_text(encoding="ascii") != token:
            raise OtherFiles(
                f"The pod of {self._node} was replaced and its run directory is lost; the new pod began anew.",
                "Stop it, and launch the run again with a volume claim.",
            )

    def _append(self, piece: Piece, *, fill: bool) -> bool:
        if not self._grows.fullmatch(piece.file):
            return False
        try:
            data = unpacked(piece.data)
        except ValueError:
            return False
        path = self._run_dir / piece.file
        size = _size(path)
        if piece.offset > size:
            if not fill:
                raise MissingPiece
            self._fill(path, piece.offset - size)
            size = piece.offset
        fresh = data[size - piece.offset :]
        if fresh:
            with path.open("ab") as file:
                file.write(fresh)
        return bool(fresh)

    def _fill(self, path: Path, missing: int) -> None:
        """Keep the offsets true where the cluster threw bytes away: blanks, in a line of their own."""
        self.lost_bytes += missing
        with path.open("ab") as file:
            for start in range(0, missing - 1, 1 << 20):
                file.write(b" " * min(1 << 20, missing - 1 - start))
            file.write(b"\n")

    def _collect(self, part: Part) -> bool:
        small = self._is_small.fullmatch(part.file) or (self._node == "node0" and part.file == ENVIRONMENT)
        if not small or not 0 <= part.number < part.total <= _MOST_PARTS:
            return False
        known = self._parts.setdefault(part.file, _Parts())
        if part.version < known.version:
            return False
        if part.version > known.version:
            known.version, known.parts = part.version, {}
        try:
            known.parts[part.number] = unpacked(part.data)
        except ValueError:
            return False
        if len(known.parts) < part.total:
            return False
        data = b"".join(known.parts[number] for number in sorted(known.parts))
        known.parts = {}
        path = self._run_dir / part.file
        if path == self._layout.exit_record(self._node) and self._holds_exit:
            self._held = data
            return False
        self._replace(path, data)
        return True

    @staticmethod
    def _replace(path: Path, data: bytes) -> None:
        partial = path.with_name(f"{path.name}.tmp")
        partial.write_bytes(data)
        partial.replace(path)

    def _touch(self) -> bool:
        """Show the supervisor's heartbeat: the modification time of its record."""
        record = self._layout.supervisor(self._node)
        if record.exists():
            os.utime(record)
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
