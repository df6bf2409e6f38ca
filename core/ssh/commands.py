"""Turns an argument vector into the one text that sshd hands to the user's login shell, whatever shell that is.

Words are quoted for ``/bin/sh``, which is started by the login shell. Where they hold something that csh or fish read
differently inside single quotes (backslash, ``!``, newline), those bytes travel as octal numbers.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from core.contracts.errors import UserError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./:=,@+'\"$;&|<>(){}[]*?~#^%`")
_ALWAYS_SAFE = _PLAIN - frozenset(b"'")


def command(
    argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "", *, drop_stderr: bool = False
) -> bytes:
    """Return the text to execute.

    Raises:
        UserError: A word holds a NUL, which no program can be given, or a variable has an impossible name.
    """
    script = script_of(argv, env, cwd)
    if drop_stderr:
        script += " 2>/dev/null"
    raw = script.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise UserError("A command or path holds a NUL character.", "Remove it.")
    if all(byte in _PLAIN for byte in raw):
        return b"exec /bin/sh -c " + shlex.quote(script).encode()
    octal = "".join(chr(byte) if byte in _ALWAYS_SAFE else f"\\0{byte:03o}" for byte in raw)
    return b'exec /bin/sh -c \'eval "$(printf %b "$1")"\' sh \'' + octal.encode() + b"'"


def script_of(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "") -> str:
    """Return a line of POSIX shell that becomes the program, every word quoted."""
    if not argv:
        raise UserError("There is no command to run.", "Name a program.")
    parts: list[str] = []
    if cwd:
        # CDPATH would send a relative folder elsewhere, and print where.
        parts.append(f"CDPATH= cd -- {shlex.quote(cwd)} || exit 127;")
    for name, value in (env or {}).items():
        if _NAME.fullmatch(name) is None:
            raise UserError(f"{name!r} cannot be the name of an environment variable.", "Use letters, digits and _.")
        parts.append(f"{name}={shlex.quote(value)}; export {name};")
    parts.append("exec " + " ".join(shlex.quote(word) for word in argv))
    return " ".join(parts)
