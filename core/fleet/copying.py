"""Copies code and data to a host by content: only what is not there goes over the wire, however often it is launched.

The other end is ``core.fleet.receiving``; what a copy holds is told by ``core.fleet.manifest``. A copy that is cut off
leaves contents that the next one goes on with, and never a target that is half there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import NoWatcher, Progress, Watcher
from core.contracts.links import Link, RemoteProcess
from core.contracts.placement import CopiedPath
from core.contracts.specs import RunSpec
from core.fleet.manifest import HashMemory, Manifest, survey
from core.fleet.receiving import MARK, Blob, Done, Order, Wanted
from core.plugins.registry import registry
from core.settings.home import Home

CODE_LIMIT_BYTES = 1 << 30
"""Largest folder that is copied as code: more is a mistake, such as a whole home folder."""
RECEIVER_MODULE = "core.cli.receive"
_CHUNK_BYTES = 256 << 10
_ANSWER_LIMIT_S = 300.0
_SLOWEST_BYTES_PER_S = 20e6
"""At which the other end hashes and links what it has, before it answers."""
_POLL_S = 0.5
_CHATTER_LIMIT_BYTES = 1 << 20
_decode_answer = msgspec.json.Decoder(Wanted | Done).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A file or folder to copy.

    Attributes:
        manifest: What it holds, and from where it is read.
        here: Its path in the spec: the same, unless it is read from a snapshot.
        there: Its place on the host, relative to the work folder.
        is_shared: Data, which runs share and do not write; else code, a run's own.
    """

    manifest: Manifest
    here: str
    there: str
    is_shared: bool

    @property
    def record(self) -> CopiedPath:
        """How the placement names it."""
        return CopiedPath(here=self.here, there=self.there)

    def sentence(self) -> str:
        """Return what is copied and how much it is, for people."""
        count = sum(1 for file in self.manifest.files if file.sha256)
        size = self.manifest.size_bytes
        amount = f"{size / (1 << 20):.1f} MiB" if size >= 1 << 20 else f"{size / 1024:.1f} KiB"
        files = "1 file" if count == 1 else f"{count} files"
        return f"{'Data' if self.is_shared else 'Code'} {self.here} ({files}, {amount}) to {self.there}"


def copies_of(home: Home, spec: RunSpec, run_id: str, is_cancelled: Callable[[], bool]) -> tuple[Copy, ...]:
    """Return all that a launch must copy to its hosts; reads every file that is not remembered.

    Raises:
        UserError: Something to copy is not there, or too large.
        EnvironmentProblem: A file cannot be read.
        Cancelled: Asked to end.
    """
    memory = HashMemory(home.hashes_file)
    launch = spec.launch
    found: list[Copy] = []
    code = registry().get(str(spec.__struct_config__.tag)).code_folder(spec)
    if code and launch.copy_code == "copy":
        manifest = survey(Path(code), launch.exclude, memory, limit_bytes=CODE_LIMIT_BYTES, is_cancelled=is_cancelled)
        found.append(Copy(manifest=manifest, here=code, there=f"runs/{run_id}/code", is_shared=False))
    for path in launch.copy_data:
        data = Path(path).expanduser().absolute()
        manifest = survey(data, launch.exclude, memory, is_cancelled=is_cancelled)
        found.append(
            Copy(manifest=manifest, here=str(data), there=f"data/{manifest.digest}/{data.name}", is_shared=True)
        )
    memory.save()
    return tuple(found)


class Sender:
    """Makes copies on one host, by the program there that takes them in. One thread at a time; ends with ``close``."""

    def __init__(self, link: Link, receiver: Sequence[str]) -> None:
        """Start the program, which costs its start alone until something is sent.

        Args:
            link: The host.
            receiver: Words that start ``core.cli.receive`` there, with the work folder.

        Raises:
            EnvironmentProblem: The link is lost.
        """
        self._process = link.start(receiver)
        self._sending = _Sending(link.name, self._process)

    def send(self, copies: Sequence[Copy], watcher: Watcher) -> int:
        """Make the copies; return how many bytes were sent.

        Args:
            copies: What to make, in order.
            watcher: Is told the host's share of bytes.

        Raises:
            UserError: A file changed meanwhile.
            EnvironmentProblem: The link is lost, or the host cannot take it (no space, no permission).
            Cancelled: Asked to end; what was sent is kept for the next time.
        """
        return self._sending.make_all(copies, watcher)

    def close(self) -> None:
        """Let the program end. Raises nothing."""
        self._process.close()


class _Sending:
    """Copies going over the wire to one host."""

    def __init__(self, host: str, process: RemoteProcess) -> None:
        self._host = host
        self._process = process
        self._watcher: Watcher = NoWatcher()
        self._sent_bytes = self._done_bytes = self._total_bytes = 0
        self._unread = b""
        self._has_begun = False

    def make_all(self, copies: Sequence[Copy], watcher: Watcher) -> int:
        """Have copies made, one after the other; return how many bytes were sent for them."""
        self._watcher = watcher
        self._sent_bytes = self._done_bytes = 0
        self._total_bytes = sum(copy.manifest.size_bytes for copy in copies)
        if not self._has_begun:
            self._skip_chatter()
            self._has_begun = True
        for copy in copies:
            self._make(copy)
        return self._sent_bytes

    def _skip_chatter(self) -> None:
        """Read on to the program's first line, past what a login shell printed."""
        while MARK + b"\n" not in self._unread:
            if len(self._unread) > _CHATTER_LIMIT_BYTES:
                raise self._ended()
            self._unread += self._read()
        self._unread = self._unread.partition(MARK + b"\n")[2]

    def _make(self, copy: Copy) -> None:
        """Have one copy made."""
        order = Order(
            target=copy.there,
            files=copy.manifest.files,
            is_shared=copy.is_shared,
            replaces=not copy.is_shared,
        )
        self._write(msgspec.json.encode(order) + b"\n")
        answer = self._answer()
        if isinstance(answer, Wanted):
            self._send_contents(copy, answer)
            answer = self._answer()
        if not isinstance(answer, Done):
            raise self._ended()
        self._raise_from(answer, copy)

    def _send_contents(self, copy: Copy, wanted: Wanted) -> None:
        by_content = {file.sha256: file for file in copy.manifest.files if file.sha256}
        to_send = sum(by_content[sha256].size - there for sha256, there in wanted.contents.items())
        self._report(copy.manifest.size_bytes - to_send)
        for sha256, there in wanted.contents.items():
            file = by_content[sha256]
            self._write(msgspec.json.encode(Blob(sha256=sha256, size=file.size - there)) + b"\n")
            self._send_file(copy.manifest.path_of(file), there, file.size)

    def _send_file(self, path: Path, start: int, size: int) -> None:
        with path.open("rb") as source:
            source.seek(start)
            left = size - start
            while left:
                if self._watcher.is_cancelled():
                    raise Cancelled
                data = source.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise UserError(
                        f"The file {str(path)!r} became shorter while it was being copied.", "Launch again."
                    )
                self._write(data)
                self._sent_bytes += len(data)
                left -= len(data)
                self._report(len(data))

    def _report(self, more: int) -> None:
        self._done_bytes += more
        share = self._done_bytes / self._total_bytes if self._total_bytes else 1.0
        self._watcher.report(Progress(stage=f"Copying to {self._host}", done=min(share, 1.0)))

    def _write(self, data: bytes) -> None:
        try:
            self._process.write(data)
        except EnvironmentProblem:
            # The receiver may have ended because it must refuse: its last words say more than a broken pipe.
            answer = self._last_words()
            if answer is not None and answer.error:
                raise EnvironmentProblem(f"{self._host}: {answer.error}", answer.hint) from None
            raise

    def _last_words(self) -> Done | None:
        try:
            answer = self._answer()
        except EnvironmentProblem:
            return None
        return answer if isinstance(answer, Done) else None

    def _answer(self) -> Wanted | Done:
        while b"\n" not in self._unread:
            self._unread += self._read()
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            return _decode_answer(line)
        except msgspec.MsgspecError as error:
            raise self._ended() from error

    def _read(self) -> bytes:
        deadline = time.monotonic() + _ANSWER_LIMIT_S + self._total_bytes / _SLOWEST_BYTES_PER_S
        while time.monotonic() < deadline:
            if self._watcher.is_cancelled():
                raise Cancelled
            try:
                data = self._process.read(1 << 16, _POLL_S)
            except TimeoutError:
                continue
            if data:
                return data
            break
        raise self._ended()

    def _ended(self) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"The copy to {self._host} ended before it was whole.",
            f"Check the host with: pilothouse hosts check {self._host}; then launch again: it goes on where it was.",
        )

    def _raise_from(self, done: Done, copy: Copy) -> None:
        if done.changed:
            names = [file.path or copy.manifest.here for file in copy.manifest.files if file.sha256 == done.changed]
            raise UserError(f"The file {names[0]!r} changed while it was being copied.", "Launch again.")
        if done.error:
            raise EnvironmentProblem(f"{self._host}: {done.error}", done.hint)
