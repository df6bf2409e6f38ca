"""Asks OpenSSH what its config says of a host (``ssh -G``), and remembers the answer while no file of it changes.

Starting a program for each of many hosts, at each attempt to reach one, costs more than the rest of connecting. An
answer is remembered only where it depends on nothing but files: not with ``Match exec``. Threads: any.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

from core.ssh.config_text import files_of, runs_programs

_TIMEOUT_S = 15
_MOST_REMEMBERED = 1000
_Stamp = tuple[tuple[str, int, int], ...]

_remembered: dict[tuple[str, ...], tuple[_Stamp, str]] = {}
_lock = threading.Lock()


def asked(wanted: str, user: str, config_file: Path | None) -> str | None:
    """Return what ``ssh -G`` prints for a host; None when there is no OpenSSH, or it refuses the name or its config."""
    program = shutil.which("ssh")
    if program is None:
        return None
    config_file = config_file or _moved_config()
    words = [program, "-G", *(["-F", str(config_file)] if config_file else [])]
    words += ["-l", user] if user and not user.startswith("-") else []
    question = (*words, "--", wanted)
    roots = [config_file] if config_file else [Path.home() / ".ssh" / "config", Path("/etc/ssh/ssh_config")]
    stamp = _stamp(roots)
    with _lock:
        known = _remembered.get(question)
    if known is not None and known[0] == stamp:
        return known[1]
    answer = _answer(question)
    if answer is not None and not any(runs_programs(root) for root in roots):
        with _lock:
            if len(_remembered) >= _MOST_REMEMBERED:
                _remembered.clear()
            _remembered[question] = (stamp, answer)
    return answer


def _moved_config() -> Path | None:
    """Return the config below ``HOME`` where that is not the home that OpenSSH takes, which is the user database's."""
    if os.name != "posix":
        return None
    import pwd

    here = Path.home()
    try:
        known = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    found = here / ".ssh" / "config"
    return found if here != known and found.is_file() else None


def _answer(question: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(question, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def _stamp(roots: list[Path]) -> _Stamp:
    """Return what tells whether a file of the config changed."""
    found: list[tuple[str, int, int]] = []
    for root in roots:
        for file in files_of(root):
            try:
                seen = file.stat()
            except OSError:
                continue
            found.append((str(file), seen.st_mtime_ns, seen.st_size))
    return tuple(found)
