"""The first process of a lab host (see ``host_lab``): makes the host its own, runs sshd, reaps; ends with the lab.

Started as PID 1 of fresh PID, mount, UTS, IPC and network namespaces: ``host_init.py FOLDER NAME SSHD``. SIGUSR1 stops
the SSH server (sessions live on), SIGUSR2 starts it. The end of its input means that the lab's process is gone.
Standard library only; nothing of the project is imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = [str(word).encode() if word else None for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), data.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def furnish(folder: Path, name: str) -> None:
    """Give the host its own view: processes, shared memory, users, names, and an identity of this boot."""
    mount("none", "/", "", RECURSIVE | PRIVATE)
    mount("proc", "/proc", "proc")
    mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777")
    mount(folder / "passwd", "/etc/passwd", "", BIND)
    mount(folder.parent / "hosts", "/etc/hosts", "", BIND)
    (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
    mount(folder / "boot_id", "/proc/sys/kernel/random/boot_id", "", BIND)
    libc.sethostname(name.encode(), len(name))
    os.chdir(folder / "home")


class Server:
    """The host's sshd."""

    def __init__(self, folder: Path, sshd: str) -> None:
        self.folder, self.sshd = folder, sshd
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *_: object) -> None:
        if self.process is not None:
            return
        environment = {"PATH": PATH, "LANG": os.environ.get("LANG", "C.UTF-8")}
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def stop(self, *_: object) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGTERM)

    def reaped(self, pid: int) -> None:
        if self.process is not None and pid == self.process.pid:
            self.process.returncode = 0
            self.process = None


def end_with_the_lab() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def main() -> None:
    folder = Path(sys.argv[1])
    furnish(folder, sys.argv[2])
    server = Server(folder, sys.argv[3])
    signal.signal(signal.SIGUSR1, server.stop)
    signal.signal(signal.SIGUSR2, server.start)
    threading.Thread(target=end_with_the_lab, daemon=True).start()
    server.start()
    while True:
        try:
            pid, _ = os.waitpid(-1, 0)
            server.reaped(pid)
        except ChildProcessError:
            signal.sigtimedwait([signal.SIGCHLD], 0.05)


if __name__ == "__main__":
    main()
