"""SSH servers on 127.0.0.1 that need no root: the real sshd, and one of paramiko's for passwords.

``opened_ssh_server`` runs OpenSSH's sshd as this user at a free port with keys of its own; log-ins are by key.
``opened_password_server`` runs paramiko's server side in this process: an unprivileged sshd cannot check passwords, so
password, keyboard-interactive and two-step log-ins are tested against this one. It runs real commands by ``/bin/sh``.

    with opened_ssh_server(tmp_path) as server:
        server.record("box")      # a HostRecord by hand; known_hosts=server.known_hosts
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.contracts.hosts import HostRecord
from tests.helpers.host_lab import sshd_program
from tests.helpers.waiting import wait_for

_CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_{key_type}
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
MaxStartups 200:30:400
UseDNS no
PrintMotd no
LogLevel VERBOSE
{more}
"""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keygen(path: Path, key_type: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair and return the private file."""
    words = ["ssh-keygen", "-q", "-t", key_type, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True, timeout=60)
    return path


class SshServer:
    """A running sshd.

    Attributes:
        known_hosts: Names its key; the file that a client of the test trusts.
        identity: A private key that may log in; ``authorize`` adds others.
    """

    def __init__(self, folder: Path, key_type: str = "ed25519", more: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.user = getpass.getuser()
        self.known_hosts = folder / "known_hosts"
        self.log = folder / "sshd.log"
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.identity = keygen(folder / "id_ed25519")
        self.authorize(self.identity)
        self.new_host_key(key_type)
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {self.host_key}\n")

    @property
    def host_key(self) -> str:
        """Type and base64 of its public key, as in known_hosts."""
        return " ".join((self.folder / f"host_{self.key_type}.pub").read_text().split()[:2])

    def new_host_key(self, key_type: str = "ed25519") -> None:
        """Make another host key; used from the next ``start`` on."""
        self.key_type = key_type
        for file in self.folder.glob(f"host_{key_type}*"):
            file.unlink()
        keygen(self.folder / f"host_{key_type}", key_type)

    def authorize(self, identity: Path) -> None:
        """Let a key log in."""
        with (self.folder / "authorized_keys").open("a") as file:
            file.write(identity.with_name(f"{identity.name}.pub").read_text())

    def record(self, name: str = "box", **fields: object) -> HostRecord:
        """Return a record of the server, entered by hand."""
        known: dict[str, object] = {
            "name": name,
            "address": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "identity_file": str(self.identity),
        }
        return HostRecord(**{**known, **fields})  # pyright: ignore[reportArgumentType]

    def start(self) -> None:
        """Start it and wait until it answers."""
        more = self._more
        text = _CONFIG.format(port=self.port, folder=self.folder, key_type=self.key_type, more=more)
        (self.folder / "sshd_config").write_text(text)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(sshd_program()), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        process = self._process

        def answers() -> bool:
            if process.poll() is not None:
                pytest.fail(f"sshd did not start: {self.log.read_text()[-500:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                return probe.recv(4) == b"SSH-"
            return False

        wait_for(answers, "sshd to answer", 20)

    def stop(self) -> None:
        """Stop it with all its sessions and what runs in them; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        sessions = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for one in sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        process.terminate()
        process.wait(10)


@contextmanager
def opened_ssh_server(folder: Path, key_type: str = "ed25519", more: str = "") -> Iterator[SshServer]:
    """Yield a running sshd; skip where there is none.

    Args:
        more: Further lines for its configuration.
    """
    if sshd_program() is None or shutil.which("ssh-keygen") is None:
        pytest.skip("not installed: sshd and ssh-keygen (packages openssh-server, openssh-client)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd as root refuses to start without it
    server = SshServer(folder / "ssh-server", key_type, more)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class PasswordServer:
    """Paramiko's server side at a free port, in threads.

    Attributes:
        password: What it takes.
        methods: Ways to log in that it offers, in turn: all of them are needed (``("password",)``,
            ``("keyboard-interactive",)``, ``("publickey", "keyboard-interactive")``, ...).
        prompts: What keyboard-interactive asks: (prompt, echo, right answer).
        seen: Passwords and answers as they came.
    """

    def __init__(self, folder: Path, methods: tuple[str, ...] = ("password",)) -> None:
        import paramiko

        self.methods = methods
        self.user = "tester"
        self.password = "correct horse; $(touch /nowhere) 'quoted'"
        self.prompts: list[tuple[str, bool, str]] = [("Password: ", False, self.password)]
        self.seen: list[str] = []
        self.port = free_port()
        self.key: Any = paramiko.RSAKey.generate(2048)
        self.known_hosts = folder / "password_known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} ssh-rsa {self.key.get_base64()}\n")
        self.transports: list[Any] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._threads: list[threading.Thread] = []

    def record(self, name: str = "box", **fields: object) -> HostRecord:
        """Return a record of the server, entered by hand."""
        known: dict[str, object] = {"name": name, "address": "127.0.0.1", "port": self.port, "user": self.user}
        return HostRecord(**{**known, **fields})  # pyright: ignore[reportArgumentType]

    def start(self) -> None:
        """Accept connections from now on."""
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self.transports:
            transport.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        import paramiko

        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.key)
            self.transports.append(transport)
            thread = threading.Thread(target=self._serve, args=(transport,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, transport: Any) -> None:
        import paramiko

        from tests.helpers.ssh_server_interface import PasswordInterface

        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(server=PasswordInterface(self))


@contextmanager
def opened_password_server(folder: Path, methods: tuple[str, ...] = ("password",)) -> Iterator[PasswordServer]:
    """Yield a running server that asks for passwords."""
    server = PasswordServer(folder, methods)
    server.start()
    try:
        yield server
    finally:
        server.stop()
