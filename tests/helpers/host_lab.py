"""Small real computers for tests: hosts in namespaces, each with a real sshd, a cable and a power button.

Each host has a network namespace (own address), a PID namespace (killing its init is a crash), own hostname, home,
``/etc/hosts``, ``/dev/shm`` and boot id. The file system is otherwise shared, as in a cluster with NFS, so this
project's Python works on all of them. The bridge between them lives in a network namespace too: nothing of the
machine's own network is touched, and any number of labs run at once with the same addresses.

The code under test must therefore run *inside* the bridge's namespace. ``opened_host_lab`` moves the calling thread
there; threads and processes started by it afterwards are there too, older ones are not. Without root or a package
the test is skipped with the reason.

    with opened_host_lab(2) as lab:
        lab.record("h1")          # a HostRecord by alias; config_file=lab.ssh_config
        lab.link("h1", up=False)  # pull the cable

Aliases in ``lab.ssh_config``: ``h1`` ... and ``h2-by-h1`` ... (the same hosts over a ProxyJump through ``h1``).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from core.contracts.hosts import HostRecord
from tests.helpers.waiting import wait_for

NET = "10.231.0"
LAUNCHER = "launcher"
"""Name of the place where the code under test runs, for ``partition``."""
_CLONE_NEWNET = 0x40000000
_NETNS = Path("/run/netns")
_INIT = Path(__file__).with_name("host_init.py")
_SSHD_NAMES = {"sshd", "sshd-session", "sshd-auth", "sftp-server"}
_NOWHERE = "02:00:00:00:de:ad"

_SSHD_CONFIG = """Port 22
ListenAddress 0.0.0.0
HostKey {folder}/host_ed25519
PidFile {folder}/sshd.pid
AuthorizedKeysFile {base}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
MaxStartups 200:30:400
UseDNS no
PrintMotd no
LogLevel VERBOSE
"""
_HOST_CONFIG = """Host {alias}
  HostName {address}
  User root
  IdentityFile {base}/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile {base}/known_hosts
  StrictHostKeyChecking yes
"""


def sshd_program() -> str | None:
    """Return the OpenSSH server of this machine."""
    return shutil.which("sshd", path=f"/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}")


def why_not() -> str:
    """Return why no lab can be made here; empty when one can."""
    if os.geteuid() != 0:
        return "hosts in network namespaces need root"
    missing = [name for name in ("ip", "nsenter", "unshare", "ssh-keygen") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages iproute2, util-linux, openssh-client)"
    return "" if sshd_program() else "not installed: sshd (package openssh-server)"


@contextmanager
def opened_host_lab(count: int) -> Iterator[HostLab]:
    """Yield a lab with ``count`` running hosts, the calling thread on their bridge; skip where none can be made."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="hostlab-") as base:
        lab = HostLab(Path(base), count)
        try:
            lab.up()
            with lab.entered():
                yield lab
        finally:
            lab.down()


class HostLab:
    """``count`` hosts ``h1`` ... at ``10.231.0.1`` ..., the code under test at ``10.231.0.254``."""

    def __init__(self, base: Path, count: int) -> None:
        self.base = base
        self.count = count
        self.names = tuple(f"h{index + 1}" for index in range(count))
        self.ssh_config = base / "ssh_config"
        self.known_hosts = base / "known_hosts"
        self.identity = base / "id_ed25519"
        self._mark = f"hostlab-{os.getpid()}-{secrets.token_hex(3)}"
        self._inits: dict[str, subprocess.Popen[bytes]] = {}

    # Where things are

    def address(self, host: str) -> str:
        """Return the host's address; ``launcher`` is where the code under test runs."""
        return f"{NET}.254" if host == LAUNCHER else f"{NET}.{self.names.index(host) + 1}"

    def folder(self, host: str) -> Path:
        """Return the folder with the host's ``home``, keys and logs."""
        return self.base / host

    def home(self, host: str) -> Path:
        """Return the home folder of root on the host."""
        return self.folder(host) / "home"

    def record(self, host: str, **fields: object) -> HostRecord:
        """Return a record of the host by its alias in ``ssh_config``."""
        return HostRecord(**{"name": host, "alias": host, **fields})  # pyright: ignore[reportArgumentType]

    def record_by_hand(self, host: str, **fields: object) -> HostRecord:
        """Return a record of the host without any ssh config."""
        known: dict[str, object] = {
            "name": host,
            "address": self.address(host),
            "user": "root",
            "identity_file": str(self.identity),
        }
        return HostRecord(**{**known, **fields})  # pyright: ignore[reportArgumentType]

    def netns(self, host: str) -> str:
        """Return the name of a host's network namespace; of the bridge's for ``launcher``."""
        return f"{self._mark}-{host}"

    # Set-up

    def up(self) -> None:
        """Make the bridge and boot all hosts."""
        _sweep()
        Path("/run/sshd").mkdir(exist_ok=True)
        _keygen(self.identity, "lab")
        shutil.copy(self.identity.with_suffix(".pub"), self.base / "authorized_keys")
        names = "".join(f"{self.address(name)} {name}\n" for name in (*self.names, LAUNCHER))
        (self.base / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        _run("ip", "netns", "add", self.netns(LAUNCHER))
        self._bridge("link", "set", "lo", "up")
        self._bridge("link", "add", "br0", "type", "bridge", "forward_delay", "0")
        self._bridge("addr", "add", f"{self.address(LAUNCHER)}/24", "dev", "br0")
        self._bridge("link", "set", "br0", "up")
        for host in self.names:
            self._make(host)
            self._boot(host)
        self._write_client_files()
        for host in self.names:
            self._await_banner(host)

    def _make(self, host: str) -> None:
        folder = self.folder(host)
        self.home(host).mkdir(parents=True)
        _keygen(folder / "host_ed25519", host)
        (folder / "sshd_config").write_text(_SSHD_CONFIG.format(folder=folder, base=self.base))
        users = Path("/etc/passwd").read_text().splitlines()
        root = f"root:x:0:0:root:{self.home(host)}:/bin/bash"
        (folder / "passwd").write_text("\n".join(root if u.startswith("root:") else u for u in users) + "\n")
        name = self.netns(host)
        _run("ip", "netns", "add", name)
        self._bridge("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
        self._bridge("link", "set", host, "master", "br0", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "eth0", "up")

    def _write_client_files(self) -> None:
        known: list[str] = []
        blocks: list[str] = []
        for host in self.names:
            key = " ".join((self.folder(host) / "host_ed25519.pub").read_text().split()[:2])
            known.append(f"{host},{self.address(host)} {key}\n")
            blocks.append(_HOST_CONFIG.format(alias=host, address=self.address(host), base=self.base))
            if host != self.names[0]:
                alias = f"{host}-by-{self.names[0]}"
                block = _HOST_CONFIG.format(alias=alias, address=self.address(host), base=self.base)
                blocks.append(f"{block}  ProxyJump {self.names[0]}\n")
        self.known_hosts.write_text("".join(known))
        self.ssh_config.write_text("".join(blocks))

    def _boot(self, host: str) -> None:
        namespaces = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]
        init = [sys.executable, "-S", "-E", str(_INIT), str(self.folder(host)), host, str(sshd_program())]
        with (self.folder(host) / "init.log").open("ab") as log:
            self._inits[host] = subprocess.Popen(
                ["ip", "netns", "exec", self.netns(host), *namespaces, *init],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    def _await_banner(self, host: str) -> None:
        def answers() -> bool:
            if self._inits[host].poll() is not None:
                pytest.fail(f"{host} did not boot: {(self.folder(host) / 'init.log').read_text()[-500:]}")
            with contextlib.suppress(OSError), socket.create_connection((self.address(host), 22), 1) as probe:
                return probe.recv(4) == b"SSH-"
            return False

        with self.entered():
            wait_for(answers, f"sshd of {host}", 20)

    def down(self) -> None:
        """Remove everything; safe to call twice."""
        for host in tuple(self._inits):
            self.crash(host)
        for name in (*self.names, LAUNCHER):
            if (_NETNS / self.netns(name)).exists():
                _run("ip", "netns", "del", self.netns(name))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the bridge's network; what it starts inside is there too."""
        with Path("/proc/thread-self/ns/net").open() as before, (_NETNS / self.netns(LAUNCHER)).open() as bridge:
            _setns(bridge.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    # Faults

    def link(self, host: str, *, up: bool) -> None:
        """Plug or pull the cable: packets vanish, nobody is told."""
        self._bridge("link", "set", host, "up" if up else "down")

    def partition(self, one: str, other: str) -> None:
        """Let nothing pass between two hosts (or a host and ``launcher``) any more; others reach both."""
        for here, there in ((one, other), (other, one)):
            # An address that nobody has: frames vanish in silence, where a blackhole route would answer at once.
            entry = ("replace", self.address(there), "lladdr", _NOWHERE, "dev", _device(here), "nud", "permanent")
            _run("ip", "-n", self.netns(here), "neigh", *entry)

    def heal(self, one: str, other: str) -> None:
        """Undo ``partition``."""
        for here, there in ((one, other), (other, one)):
            _run("ip", "-n", self.netns(here), "neigh", "del", self.address(there), "dev", _device(here))

    def rate(self, host: str, rate: str) -> None:
        """Limit what flows to a host, such as ``20mbit``; empty for no limit."""
        inside = ("ip", "netns", "exec", self.netns(LAUNCHER), "tc", "qdisc")
        if rate:
            shape = ("root", "tbf", "rate", rate, "burst", "64kb", "latency", "400ms")
            _run(*inside, "replace", "dev", host, *shape)
        else:
            _run(*inside, "del", "dev", host, "root")

    def sshd(self, host: str, *, on: bool) -> None:
        """Start or stop the host's SSH server; sessions that are open live on. Returns when it is done."""
        os.kill(self._init_pid(host), signal.SIGUSR2 if on else signal.SIGUSR1)
        if on:
            self._await_banner(host)
        else:
            wait_for(lambda: not self._listens(host), f"sshd of {host} to end", 10)

    def end_sessions(self, host: str) -> None:
        """Kill the SSH sessions that are open on a host, as a restart of the whole service does."""
        for process in self._processes(host):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() in _SSHD_NAMES and not _is_listener(process):
                    process.kill()

    def freeze(self, host: str) -> None:
        """Let the host hang: its kernel answers TCP, no process runs."""
        for process in self._processes(host):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self, host: str) -> None:
        """Undo ``freeze``."""
        for process in self._processes(host):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def crash(self, host: str) -> None:
        """Kill all of the host at once; peers see their connections end. Nothing happens when it is off."""
        init = self._inits.pop(host, None)
        if init is None:
            return
        for child in psutil.Process(init.pid).children() if init.poll() is None else []:
            child.kill()
        init.wait(10)
        if init.stdin is not None:
            init.stdin.close()

    def poweroff(self, host: str) -> None:
        """Cut the host off, then kill it: peers see silence."""
        self.link(host, up=False)
        self.crash(host)

    def start(self, host: str) -> None:
        """Boot a host that is off; same address and host key, another boot id."""
        self.link(host, up=True)
        self._boot(host)
        self._await_banner(host)

    def new_host_key(self, host: str) -> None:
        """Give the host another key, as when it was set up anew; known to nobody."""
        self.sshd(host, on=False)
        for file in self.folder(host).glob("host_ed25519*"):
            file.unlink()
        _keygen(self.folder(host) / "host_ed25519", host)
        self.sshd(host, on=True)

    def small_disk(self, host: str, folder: Path, size: str) -> None:
        """Put an empty disk of ``size`` (such as ``2m``) at ``folder`` of the host; gone at its next boot."""
        folder.mkdir(parents=True, exist_ok=True)
        self.execute(host, ["mount", "-t", "tmpfs", "-o", f"size={size}", "small", str(folder)])

    # Looking

    def execute(self, host: str, argv: Sequence[str]) -> str:
        """Run a command on the host without SSH and return what it printed."""
        inside = ("nsenter", "-t", str(self._init_pid(host)), "-m", "-u", "-i", "-n", "-p", "--")
        return _run(*inside, *argv)

    def jobs(self, host: str) -> dict[int, str]:
        """Return pid (as seen from outside) and command line of all that runs there but its init and sshd."""
        found: dict[int, str] = {}
        for process in self._processes(host):
            with contextlib.suppress(psutil.NoSuchProcess):
                words = process.cmdline()
                if words and process.name() not in _SSHD_NAMES:
                    found[process.pid] = " ".join(words)
        return found

    def _init_pid(self, host: str) -> int:
        children = psutil.Process(self._inits[host].pid).children()
        assert children, f"{host} is off"
        return children[0].pid

    def _processes(self, host: str) -> list[psutil.Process]:
        """All processes of a host but its init."""
        init = self._init_pid(host)
        namespace = Path(f"/proc/{init}/ns/pid").readlink()
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if process.pid != init and Path(f"/proc/{process.pid}/ns/pid").readlink() == namespace:
                    found.append(process)
        return found

    def _listens(self, host: str) -> bool:
        return any(_is_listener(process) for process in self._processes(host))

    def _bridge(self, *words: str) -> None:
        _run("ip", "-n", self.netns(LAUNCHER), *words)


def _is_listener(process: psutil.Process) -> bool:
    """Tell sshd's own process from those of its sessions, whose titles name their user."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name() == "sshd" and " -D " in " ".join(process.cmdline())
    return False


def _device(host: str) -> str:
    return "br0" if host == LAUNCHER else "eth0"


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{words} ended with {done.returncode}: {done.stderr.strip()}"
    return done.stdout


def _keygen(path: Path, comment: str) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _sweep() -> None:
    """Remove the namespaces of labs whose process was killed; their hosts ended with it."""
    for path in _NETNS.glob("hostlab-*"):
        pid = path.name.split("-")[1]
        if not psutil.pid_exists(int(pid)):
            with contextlib.suppress(AssertionError):  # another lab sweeps at the same time
                _run("ip", "netns", "del", path.name)


def wait_out(seconds: float) -> None:
    """Let a fault last: the one kind of waiting that has no condition."""
    time.sleep(seconds)
