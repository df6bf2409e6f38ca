"""``connect`` to a host by SSH, and the link that comes of it.

One connection per host, its hops included; commands, programs and files are channels of it. Nothing here starts
again by itself: who keeps a host connected is ``core.fleet``. paramiko is imported on first use.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import Asker, HostRecord
from core.contracts.links import Completed, RemoteFile
from core.ssh.channels import Channels, SshProcess
from core.ssh.commands import command
from core.ssh.config import Target, resolve
from core.ssh.files import Files
from core.ssh.handshake import Chain, Trust
from core.ssh.hashing import sha256_here, sha256_there
from core.ssh.login import Answers, KeptSecrets, SessionExpired
from core.ssh.probe import Prober
from core.ssh.problems import Unreachable

_MAX_ATTEMPTS = 3


def _never() -> bool:
    return False


def connect(
    record: HostRecord,
    *,
    asker: Asker,
    secrets: KeptSecrets,
    known_hosts: Path,
    config_file: Path | None = None,
    is_cancelled: Callable[[], bool] = _never,
) -> SshLink:
    """Connect to a host and log in; blocks, asks, never on the UI thread.

    Args:
        record: The host.
        asker: Asked for unknown host keys and for secrets; called on this thread, and for prompts of
            keyboard-interactive on one of the connection's.
        secrets: Where passphrases and passwords are kept.
        known_hosts: Our own file of host keys; accepted keys are added there. The user's files are only read.
        config_file: An ssh config instead of the user's.
        is_cancelled: Looked at several times a second; when it is true, connecting ends.

    Raises:
        Unreachable: Nothing answers, or not as an SSH server.
        Refused: The host's key or our log-in was refused.
        UserError: The record or the config cannot be followed.
        Cancelled: The user cancelled.
    """
    target = resolve(record, config_file)
    trust = Trust(asker=asker, secrets=secrets, known_hosts=known_hosts, is_cancelled=is_cancelled)
    answers = Answers()
    for _ in range(_MAX_ATTEMPTS):
        if is_cancelled():
            raise Cancelled
        chain = Chain()
        try:
            chain.open(target, trust, answers)
        except SessionExpired:
            chain.close()
            answers.was_asked = False
            continue
        except BaseException:
            chain.close()
            raise
        return SshLink(target, chain)
    raise Unreachable(f"{target.name} closed the connection while logging in.", "Try again, and answer sooner.")


class SshLink:
    """A connection to a host; see ``core.contracts.links.Link``."""

    def __init__(self, target: Target, chain: Chain) -> None:
        self._target = target
        self._chain = chain
        self._channels = Channels(target.name, chain.transport)
        self._files = Files(target.name, self._channels)
        self._prober = Prober(chain.transport)
        self._closing = threading.Lock()
        self._home = ""

    @property
    def name(self) -> str:
        """Name of the host."""
        return self._target.name

    @property
    def address(self) -> str:
        """Address that was connected to."""
        return self._target.hostname

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
        """Run a command to its end; EnvironmentProblem when the link is lost or it takes too long."""
        return self._channels.run(command(argv, env, cwd), stdin, timeout_s, limit_bytes)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = "") -> SshProcess:
        """Start a program whose input and output are kept; its stderr is dropped."""
        return SshProcess(self._channels, command(argv, env, cwd, drop_stderr=True))

    def home(self) -> str:
        """Return the user's home folder on the host."""
        if not self._home:
            done = self.run(["/bin/sh", "-c", 'printf %s "$HOME"'])
            self._home = os.fsdecode(done.stdout)
            if not self._home.startswith("/"):
                raise EnvironmentProblem(f"The user has no home folder on {self.name}.", "Ask who looks after it.")
        return self._home

    def stat(self, path: str) -> RemoteFile | None:
        """Return what is known of a file; None when it is not there."""
        return self._files.stat(path)

    def listdir(self, path: str) -> list[RemoteFile]:
        """Return what is in a folder; FileNotFoundError when it is not there."""
        return self._files.listdir(path)

    def makedirs(self, path: str) -> None:
        """Make a folder and those above it."""
        self._must(["mkdir", "-p", "--", path], f"The folder {path} cannot be made on {self.name}")

    def read(self, path: str, offset: int = 0, limit: int = 1 << 20) -> bytes:
        """Return up to ``limit`` bytes of a file from ``offset``; FileNotFoundError when it is not there."""
        return self._files.read(path, offset, limit)

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file as a whole, by rename."""
        self._files.write(path, data, mode)

    def put(self, local_path: str, path: str, on_bytes: Callable[[int], None] | None = None) -> None:
        """Copy a file there with resume and hash; see ``Link.put``."""
        local = Path(local_path)
        try:
            size, digest, mode = local.stat().st_size, sha256_here(local), local.stat().st_mode & 0o777
        except OSError as error:
            raise UserError(f"{local} cannot be read: {error.strerror}.", "Check the path.") from error
        # The name holds the hash: what a cut left of another version of the file is never gone on from.
        part = _beside(path, digest)
        for _ in range(2):
            self._files.upload(local, part, mode, on_bytes or _nobody)
            if sha256_there(self, part, size) == digest:
                self._files.rename(part, path)
                return
            self.remove(part)
        raise EnvironmentProblem(
            f"{local} changed while it was copied to {self.name}, or the copy is damaged.", "Try again."
        )

    def get(self, path: str, local_path: str, on_bytes: Callable[[int], None] | None = None) -> None:
        """Copy a file here with resume and hash; see ``Link.get``."""
        local = Path(local_path)
        for _ in range(2):
            found = self.stat(path)
            if found is None:
                raise FileNotFoundError(path)
            digest = sha256_there(self, path, found.size)
            part = Path(_beside(str(local), digest))
            self._files.download(path, part, found.size, on_bytes or _nobody)
            if sha256_here(part) == digest:
                part.chmod(found.mode & 0o777 | 0o600)
                part.replace(local)
                return
            part.unlink()
        raise EnvironmentProblem(
            f"{path} changed while it was copied from {self.name}, or the copy is damaged.", "Try again."
        )

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing happens when it is not there."""
        if path.strip("/") in {"", ".", "..", "~"}:
            raise UserError(f"{path!r} is not removed on a host.", "Name a file or folder below it.")
        self._must(["rm", "-rf", "--", path], f"{path} cannot be removed on {self.name}", timeout_s=600.0)

    def is_alive(self) -> bool:
        """Return whether the link was in order when last looked at; does not ask the host."""
        return self._channels.is_active() and self._prober.is_answering

    def probe(self, timeout_s: float = 5.0) -> float:
        """Ask the host for a sign of life and return the round trip in seconds; EnvironmentProblem when none comes."""
        if not self._channels.is_active():
            raise self._channels.lost()
        took = self._prober.ask(timeout_s)
        if took is None:
            raise self._channels.silent()
        return took

    def close(self) -> None:
        """Close the connection; whatever waits on it ends. Never raises."""
        self._channels.is_closed = True
        with self._closing:
            self._chain.close()

    def _must(self, argv: Sequence[str], what: str, timeout_s: float = 60.0) -> None:
        done = self.run(argv, timeout_s=timeout_s)
        if done.code != 0:
            reason = done.stderr.decode("utf-8", "replace").strip().rpartition(": ")[2] or "it failed"
            raise EnvironmentProblem(f"{what}: {reason}.", "Check permissions and free space there.")


def _nobody(done: int) -> None:
    del done


def _beside(path: str, digest: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}.{name[:200]}.{digest[:16]}.part"
