"""SHA-256 of files, here and on a host with whatever program is there for it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.contracts.links import Link

_HEX = re.compile(rb"\b[0-9a-f]{64}\b")
_SLOWEST_BYTES_PER_S = 20e6
_SCRIPT = """
if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1"
elif command -v shasum >/dev/null 2>&1; then shasum -a 256 <"$1"
elif command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 <"$1"
else exec python3 -c 'import hashlib,sys
h=hashlib.sha256()
for b in iter(lambda: sys.stdin.buffer.read(1<<20),b""): h.update(b)
print(h.hexdigest())' <"$1"
fi
"""


def sha256_here(path: Path) -> str:
    """Return the hash of a file of this machine, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_there(link: Link, path: str, size: int) -> str:
    """Return the hash of a file of a host; ``size`` in bytes bounds the time.

    Raises:
        EnvironmentProblem: It cannot be read, or no program there can tell.
    """
    done = link.run(["/bin/sh", "-c", _SCRIPT, "sh", path], timeout_s=120 + size / _SLOWEST_BYTES_PER_S)
    found = _HEX.search(done.stdout)
    if done.code != 0 or found is None:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no program for it is there"]
        raise EnvironmentProblem(
            f"The hash of {path} on {link.name} cannot be told: {reason[0]}.",
            "Make sure that the file is readable and that sha256sum is installed there.",
        )
    return found[0].decode()
