"""This machine as a host: the link that needs no SSH."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.links import Completed, RemoteFile
from core.ssh.hashing import sha256_here
from core.ssh.local_process import LocalProcess, feed, read_to_end

_CHUNK = 1 << 18


class LocalLink:
    """See ``core.contracts.links.Link``; programs run as this user, with this process's environment."""

    def __init__(self, name: str = "local") -> None:
        self._name = name
        self._is_closed = False
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the host."""
        return self._name

    def _check_open(self) -> None:
        if self._is_closed:
            raise Cancelled

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
        """Run a command to its end; EnvironmentProblem when it takes too long."""
        try:
            process = self._popen(argv, env, cwd, subprocess.PIPE)
        except OSError as error:
            # As a shell has it: 127 for what is not there, 126 for what cannot be run.
            code = 127 if isinstance(error, FileNotFoundError | NotADirectoryError) else 126
            return Completed(code=code, stdout=b"", stderr=f"{argv[0]}: {error.strerror}\n".encode())
        feeder = threading.Thread(target=feed, args=(process, stdin), name="local-stdin", daemon=True)
        feeder.start()
        try:
            outputs = read_to_end(process, time.monotonic() + timeout_s, limit_bytes)
        finally:
            self._forget(process)
        self._check_open()
        if outputs is None:
            raise EnvironmentProblem(f"A command took longer than {timeout_s:g} s.", "The machine may be overloaded.")
        code = process.returncode
        return Completed(code=code if code >= 0 else None, stdout=outputs[0], stderr=outputs[1])

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = "") -> LocalProcess:
        """Start a program whose input and output are kept; its stderr is dropped."""
        try:
            process = self._popen(argv, env, cwd, subprocess.DEVNULL)
        except OSError as error:
            raise EnvironmentProblem(
                f"{argv[0]} cannot be started: {error.strerror}.", "Check that it is there and may be run."
            ) from error
        return LocalProcess(process, lambda: self._forget(process))

    def _popen(
        self, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str, stderr: int
    ) -> subprocess.Popen[bytes]:
        self._check_open()
        if not argv:
            raise UserError("There is no command to run.", "Name a program.")
        if any("\0" in word for word in (*argv, cwd, *(env or {}).values())):
            raise UserError("A command or path holds a NUL character.", "Remove it.")
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            cwd=cwd or Path.home(),
            start_new_session=True,
            bufsize=0,
        )
        with self._lock:
            self._running.add(process)
        return process

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        """Let go of a program: its pipes are closed; it is reaped once it ends."""
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with self._lock:
            self._running.discard(process)
        if process.poll() is None:
            threading.Thread(target=process.wait, name="local-reaper", daemon=True).start()

    def home(self) -> str:
        """Return the user's home folder."""
        return str(Path.home())

    def stat(self, path: str) -> RemoteFile | None:
        """Return what is known of a file; None when it is not there."""
        try:
            with self._explained(path):
                return _described(Path(path).name, Path(path).stat())
        except FileNotFoundError:
            return None

    def listdir(self, path: str) -> list[RemoteFile]:
        """Return what is in a folder; FileNotFoundError when it is not there."""
        with self._explained(path):
            return [_described(entry.name, _stat_of(entry)) for entry in os.scandir(path)]

    def makedirs(self, path: str) -> None:
        """Make a folder and those above it."""
        with self._explained(path):
            Path(path).mkdir(parents=True, exist_ok=True)

    def read(self, path: str, offset: int = 0, limit: int = 1 << 20) -> bytes:
        """Return up to ``limit`` bytes of a file from ``offset``; FileNotFoundError when it is not there."""
        with self._explained(path), Path(path).open("rb") as file:
            file.seek(offset)
            return file.read(limit)

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file as a whole, by rename."""
        part = Path(f"{path}.{secrets.token_hex(4)}.part")
        with self._explained(path):
            try:
                part.write_bytes(data)
                part.chmod(mode)
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def put(self, local_path: str, path: str, on_bytes: Callable[[int], None] | None = None) -> None:
        """Copy a file; the whole is compared by hash."""
        if not Path(local_path).is_file():
            raise UserError(f"{local_path} cannot be read.", "Check the path.")
        self._copy(Path(local_path), Path(path), on_bytes)

    def get(self, path: str, local_path: str, on_bytes: Callable[[int], None] | None = None) -> None:
        """Copy a file; the whole is compared by hash."""
        if not Path(path).exists():
            raise FileNotFoundError(path)
        self._copy(Path(path), Path(local_path), on_bytes)

    def _copy(self, source: Path, target: Path, on_bytes: Callable[[int], None] | None) -> None:
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        with self._explained(str(target)):
            try:
                self._copy_bytes(source, part, on_bytes)
                if sha256_here(part) != sha256_here(source):
                    raise EnvironmentProblem(f"{source} changed while it was copied.", "Try again.")
                part.chmod(source.stat().st_mode & 0o777)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)

    def _copy_bytes(self, source: Path, part: Path, on_bytes: Callable[[int], None] | None) -> None:
        done = 0
        with source.open("rb") as reader, part.open("wb") as writer:
            while block := reader.read(_CHUNK):
                self._check_open()
                writer.write(block)
                done += len(block)
                if on_bytes is not None:
                    on_bytes(done)
        if done == 0 and on_bytes is not None:
            on_bytes(0)

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing happens when it is not there."""
        if path.strip("/") in {"", ".", "..", "~"}:
            raise UserError(f"{path!r} is not removed.", "Name a file or folder below it.")
        with self._explained(path):
            found = Path(path)
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)

    def is_alive(self) -> bool:
        """Return whether it was not closed."""
        return not self._is_closed

    def probe(self, timeout_s: float = 5.0) -> float:
        """Return 0: there is no way to go."""
        del timeout_s
        self._check_open()
        return 0.0

    def close(self) -> None:
        """End the programs that ``run`` waits for; those of ``start`` are told by the end of their input."""
        self._is_closed = True
        with self._lock:
            running = tuple(self._running)
        for process in running:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            process.terminate()

    @contextmanager
    def _explained(self, path: str) -> Generator[None]:
        self._check_open()
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EnvironmentProblem(
                f"{path} could not be read or written: {(error.strerror or str(error)).lower()}.",
                "Check permissions and free space.",
            ) from error


def _stat_of(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link to nowhere stands for itself
        return entry.stat(follow_symlinks=False)


def _described(name: str, found: os.stat_result) -> RemoteFile:
    return RemoteFile(
        name=name,
        size=found.st_size,
        mtime=found.st_mtime,
        is_dir=stat.S_ISDIR(found.st_mode),
        mode=stat.S_IMODE(found.st_mode),
    )
