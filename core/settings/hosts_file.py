"""The hosts that the user added, in ``hosts.toml`` of the home folder: read, and changed one record at a time.

Window and command line may change it at once, so each change reads the file, under a lock, and replaces it as a whole.
It holds no secrets. A damaged file is never overwritten: the user may have written it by hand.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import HOST_NAME_PATTERN, LOCAL_HOST, HostRecord


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    hosts: tuple[HostRecord, ...] = ()


class HostsFile:
    """The user's hosts. Thread-safe, also between processes; blocks on the disk for a moment."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hosts(self) -> tuple[HostRecord, ...]:
        """Return all hosts in the order added.

        Raises:
            UserError: The file is damaged; it is left as it is.
            EnvironmentProblem: It cannot be read.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except UnicodeDecodeError as error:
            raise self._damaged(error) from error
        except OSError as error:
            raise EnvironmentProblem(
                f"The hosts file {str(self._path)!r} cannot be read: {error.strerror or error}.",
                "Check its permissions.",
            ) from error
        try:
            found = msgspec.convert(tomllib.loads(text), _Document).hosts
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise self._damaged(error) from error
        if len({record.name for record in found}) < len(found):
            raise self._damaged("two hosts have the same name")
        return found

    def host(self, name: str) -> HostRecord:
        """Return one host; UserError when there is none of the name. ``local`` is this machine and always there."""
        for record in self.hosts():
            if record.name == name:
                return record
        if name == LOCAL_HOST:
            return HostRecord(name=LOCAL_HOST)
        raise self._unknown(name)

    def add(self, record: HostRecord) -> None:
        """Add a host; UserError when its name is taken or cannot be a host's."""
        checked(record)

        def added(hosts: tuple[HostRecord, ...]) -> tuple[HostRecord, ...]:
            if any(known.name == record.name for known in hosts):
                raise UserError(f"There is a host {record.name!r} already.", "Choose another name, or change that one.")
            return (*hosts, record)

        self._change(added)

    def update(self, record: HostRecord) -> None:
        """Replace the host of the same name; UserError when there is none."""
        checked(record)

        def updated(hosts: tuple[HostRecord, ...]) -> tuple[HostRecord, ...]:
            if all(known.name != record.name for known in hosts):
                raise self._unknown(record.name)
            return tuple(record if known.name == record.name else known for known in hosts)

        self._change(updated)

    def remove(self, name: str) -> None:
        """Forget a host; nothing is changed on it. UserError when there is none of the name."""

        def removed(hosts: tuple[HostRecord, ...]) -> tuple[HostRecord, ...]:
            if all(known.name != name for known in hosts):
                raise self._unknown(name)
            return tuple(known for known in hosts if known.name != name)

        self._change(removed)

    def _change(self, change: Callable[[tuple[HostRecord, ...]], tuple[HostRecord, ...]]) -> None:
        try:
            with self._locked():
                document = {"hosts": [_plain(record) for record in change(self.hosts())]}
                partial = self._path.with_name(f".{self._path.name}.tmp")
                partial.write_text(tomli_w.dumps(document), encoding="utf-8")
                partial.replace(self._path)
        except OSError as error:
            raise EnvironmentProblem(
                f"The hosts file {str(self._path)!r} cannot be written: {error.strerror or error}.",
                "Check the home folder's permissions and free space.",
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the right to change the file, among all processes."""
        import fcntl

        descriptor = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _damaged(self, reason: object) -> UserError:
        return UserError(
            f"The hosts file {str(self._path)!r} is damaged: {reason}.", "Mend it in an editor, or move it away."
        )

    @staticmethod
    def _unknown(name: str) -> UserError:
        return UserError(f"There is no host {name!r}.", "List the hosts with: pilothouse hosts list")


def _plain(record: HostRecord) -> dict[str, Any]:
    """Return the record as TOML can say it: what is not known is left out."""
    plain = msgspec.to_builtins(record)
    plain["runtime"] = {key: value for key, value in plain["runtime"].items() if value is not None}
    return plain


def checked(record: HostRecord) -> HostRecord:
    """Return the record; UserError when its name or its numbers are not as a host's must be."""
    if record.name == LOCAL_HOST:
        raise UserError(f"The name {LOCAL_HOST!r} is this machine's.", "Choose another name.")
    if not re.fullmatch(HOST_NAME_PATTERN, record.name):
        raise UserError(
            f"{record.name!r} cannot be the name of a host.",
            "Use letters, digits, dots, dashes and underscores; begin with a letter or a digit; 63 characters at most.",
        )
    try:
        return msgspec.convert(msgspec.to_builtins(record), HostRecord)
    except msgspec.ValidationError as error:
        raise UserError(f"The host {record.name!r} cannot be so: {error}.") from error
