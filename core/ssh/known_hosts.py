"""Keys by which hosts are known: reads the user's files and ours, writes only ours, only by adding a line.

An own reader, because paramiko's gives up on a whole file for one ``@cert-authority`` line, knows no wildcards beside
ports, and drops comments when it writes. Lines that are not understood are passed over.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from core.contracts.errors import EnvironmentProblem

DEFAULT_PORT = 22
_MARKERS = ("@cert-authority", "@revoked")


class Verdict(StrEnum):
    """What is known of a host's key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    NEW_TYPE = "new_type"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """One line of a file.

    Attributes:
        marker: ``@cert-authority``, ``@revoked``, or empty.
        names: Its first field: patterns, or one hashed name.
        line: Number of the line, from 1.
    """

    marker: str
    names: str
    key_type: str
    key: bytes
    file: Path
    line: int

    def is_of(self, name: str) -> bool:
        """Return whether the line is about a host, given as ``known_as`` gives it."""
        if self.names.startswith("|1|"):
            return _matches_hash(self.names, name)
        is_found = False
        for pattern in self.names.lower().split(","):
            negated = pattern.startswith("!")
            if _matches(name.lower(), pattern.removeprefix("!")):
                if negated:
                    return False
                is_found = True
        return is_found


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict on a key, and the line that it rests upon."""

    verdict: Verdict
    rests_on: KnownKey | None = None


def known_as(host: str, port: int) -> str:
    """Return the name of a host in these files."""
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def fingerprint(key: bytes) -> str:
    """Return what ``ssh-keygen -l`` shows of a public key."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


class KnownHosts:
    """The keys of several files, read when it is made."""

    def __init__(self, own_file: Path, others: Iterable[Path] = ()) -> None:
        self._own_file = own_file
        self._keys = [key for file in (own_file, *others) for key in _read(file)]

    def judge(self, host: str, port: int, key_type: str, key: bytes) -> Judgement:
        """Return what is known of the key that a host showed."""
        revoked = [k for k in self._keys if k.marker == "@revoked" and k.key == key and self._is_about(k, host, port)]
        if revoked:
            return Judgement(verdict=Verdict.REVOKED, rests_on=revoked[0])
        found = self._of(host, port)
        # OpenSSH, too, takes a host that is known without its port.
        same = [known for known in found or self._of(host, DEFAULT_PORT) if known.key == key]
        if same:
            return Judgement(verdict=Verdict.KNOWN, rests_on=same[0])
        if not found:
            return Judgement(verdict=Verdict.UNKNOWN)
        changed = [known for known in found if known.key_type == key_type]
        if changed:
            return Judgement(verdict=Verdict.CHANGED, rests_on=changed[0])
        return Judgement(verdict=Verdict.NEW_TYPE, rests_on=found[0])

    def types(self, host: str, port: int) -> tuple[str, ...]:
        """Return the types of key by which a host is known: ask it for one of these first."""
        found = self._of(host, port) or self._of(host, DEFAULT_PORT)
        return tuple(dict.fromkeys(key.key_type for key in found))

    def add(self, host: str, port: int, key_type: str, key: bytes) -> None:
        """Add a line to our own file; EnvironmentProblem when that cannot be written."""
        line = f"{known_as(host, port)} {key_type} {base64.b64encode(key).decode()}\n"
        file = self._own_file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as opened:
                text = opened.read()
                opened.write((b"\n" if text and not text.endswith(b"\n") else b"") + line.encode())
        except OSError as error:
            raise EnvironmentProblem(
                f"The host's key could not be kept in {file}: {error.strerror}.", "Make the file writable."
            ) from error
        self._keys = [kept for kept in self._keys if kept.file != file] + list(_read(file))

    def _of(self, host: str, port: int) -> list[KnownKey]:
        return [key for key in self._keys if not key.marker and key.is_of(known_as(host, port))]

    @staticmethod
    def _is_about(key: KnownKey, host: str, port: int) -> bool:
        return key.is_of(known_as(host, port)) or key.is_of(host)


def _read(file: Path) -> Iterator[KnownKey]:
    try:
        text = file.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0] in _MARKERS else ""
        if len(fields) < 3 or fields[0].startswith(("#", "@")):
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        yield KnownKey(marker=marker, names=fields[0], key_type=fields[1], key=key, file=file, line=number)


def _matches(name: str, pattern: str) -> bool:
    """Only ``*`` and ``?`` are special: square brackets stand around hosts with a port."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _matches_hash(names: str, name: str) -> bool:
    try:
        _, _, salt, digest = names.split("|")
        wanted = base64.b64decode(digest)
        made = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(made, wanted)
