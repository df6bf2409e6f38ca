"""Passphrases and passwords, kept in the keyring of the operating system; in an encrypted file where there is none.

The keyring is protected by the user's log-in. The file is encrypted with a key in a second file that only the user may
read: this keeps secrets out of backups and copies of one of the two files, and from other users of the machine; it
does not protect from programs that run as the user. ``where`` says which of the two is in use. Threads: any.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator
from pathlib import Path
from typing import Any

from core.contracts.errors import EnvironmentProblem

SERVICE = "pilothouse"
_UNSAFE_BACKENDS = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
"""Backends that keep nothing, or keep it in the clear."""

_log = logging.getLogger(__name__)


class Secrets(ABC):
    """Secrets by kind (``passphrase``, ``password``, ...) and what they are about. Never logged."""

    @staticmethod
    def open(fallback_file: Path) -> Secrets:
        """Return the keyring's secrets; those of ``fallback_file`` where there is no keyring that can be used."""
        return KeyringSecrets() if _has_keyring() else FileSecrets(fallback_file)

    @property
    @abstractmethod
    def where(self) -> str:
        """Where they are kept and what that protects from, as a sentence for the user."""

    @abstractmethod
    def get(self, kind: str, about: str) -> str | None:
        """Return a secret; None when it is not kept, or the keyring is locked."""

    @abstractmethod
    def put(self, kind: str, about: str, secret: str) -> None:
        """Keep a secret; EnvironmentProblem when that fails."""

    @abstractmethod
    def forget(self, kind: str, about: str) -> None:
        """Drop a secret; nothing happens when it is not kept."""


class KeyringSecrets(Secrets):
    """Secrets in the keyring of the operating system."""

    @property
    def where(self) -> str:
        """Where they are kept."""
        import keyring

        return f"Kept in the keyring of this system ({keyring.get_keyring().name}), protected by your log-in."

    def get(self, kind: str, about: str) -> str | None:
        """Return a secret."""
        import keyring
        from keyring.errors import KeyringError

        try:
            return keyring.get_password(SERVICE, _name(kind, about))
        except KeyringError as error:
            _log.warning("The keyring does not answer: %s", error)
            return None

    def put(self, kind: str, about: str, secret: str) -> None:
        """Keep a secret."""
        import keyring
        from keyring.errors import KeyringError

        try:
            keyring.set_password(SERVICE, _name(kind, about), secret)
        except KeyringError as error:
            raise EnvironmentProblem(
                "The keyring did not take the secret.", "Unlock it, or choose not to keep the secret."
            ) from error

    def forget(self, kind: str, about: str) -> None:
        """Drop a secret."""
        import keyring
        from keyring.errors import KeyringError

        with contextlib.suppress(KeyringError):
            keyring.delete_password(SERVICE, _name(kind, about))


class FileSecrets(Secrets):
    """Secrets in an encrypted file; its key lies beside it, both readable by the user only."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._key_file = file.with_name(f"{file.name}.key")
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """Where they are kept."""
        return (
            f"This system has no keyring: kept encrypted in {self._file}, with the key in {self._key_file.name} beside "
            "it. Other users cannot read them; programs that run as you can."
        )

    def get(self, kind: str, about: str) -> str | None:
        """Return a secret."""
        with self._lock:
            return self._read().get(_name(kind, about))

    def put(self, kind: str, about: str, secret: str) -> None:
        """Keep a secret."""
        with self._lock, self._alone():
            self._write({**self._read(), _name(kind, about): secret})

    def forget(self, kind: str, about: str) -> None:
        """Drop a secret."""
        if not self._file.exists():
            return
        with self._lock, self._alone():
            found = self._read()
            if found.pop(_name(kind, about), None) is not None:
                self._write(found)

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """Keep other processes from writing meanwhile: what one adds, another must not take away."""
        import fcntl

        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                self._file.with_name(f"{self._file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise self._cannot_keep(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _cannot_keep(self, error: OSError) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"The secret could not be kept in {self._file}: {error.strerror}.", "Make its folder writable."
        )

    def _read(self) -> dict[str, str]:
        """Return all; nothing when the file is not there or cannot be decrypted any more."""
        from cryptography.fernet import Fernet, InvalidToken

        try:
            fernet = Fernet(self._key_file.read_bytes())
            found = json.loads(fernet.decrypt(self._file.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, InvalidToken) as error:
            _log.warning("Kept secrets cannot be read (%s); they are asked for again.", type(error).__name__)
            return {}
        return {str(name): str(secret) for name, secret in found.items()}

    def _write(self, found: dict[str, str]) -> None:
        from cryptography.fernet import Fernet

        try:
            try:
                fernet = Fernet(self._key_file.read_bytes())
            except (FileNotFoundError, ValueError):
                key = Fernet.generate_key()
                _write_private(self._key_file, key)
                fernet = Fernet(key)
            _write_private(self._file, fernet.encrypt(json.dumps(found).encode()))
        except OSError as error:
            raise self._cannot_keep(error) from error


def _has_keyring() -> bool:
    """Return whether a keyring answers; asking it may start its service, but never shows a dialog."""
    try:
        import keyring

        backend: Any = keyring.get_keyring()
        module = type(backend).__module__
        if module.startswith(_UNSAFE_BACKENDS):
            return False
        if module == "keyring.backends.chainer":
            backends = [one for one in backend.backends if not type(one).__module__.startswith(_UNSAFE_BACKENDS)]
            return bool(backends)
        return float(backend.priority) > 0
    except Exception as error:  # noqa: BLE001 - whatever a desktop's keyring says when it is not there
        _log.info("No keyring: %s", error)
        return False


def _name(kind: str, about: str) -> str:
    return f"{kind}:{about}"


def _write_private(path: Path, data: bytes) -> None:
    """Replace a file by one that only the user may read, from its first moment."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
