"""Private keys from files: read once, decrypted once, with sentences for what may be wrong with them."""

from __future__ import annotations

import base64
import binascii
import io
import re
from pathlib import Path
from typing import Any

from core.contracts.errors import EnvironmentProblem

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----(.*?)-----END", re.DOTALL)
_MAGIC = b"openssh-key-v1\x00"


class WrongPassphrase(Exception):
    """The passphrase does not open the key."""


class KeyFile:
    """The text of a private key. Its ``path`` names it to the user."""

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            EnvironmentProblem: It cannot be read, or holds no private key that we can use.
        """
        self.path = path
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise EnvironmentProblem(
                f"The key file {path} cannot be read: {error.strerror}.", "Choose another, or make it readable."
            ) from error
        found = _PEM.search(self._data)
        if found is None:
            raise EnvironmentProblem(f"{path} is not a private key.", _what_else(self._data))
        self._label, self._body = found[1], found[2]

    @property
    def is_encrypted(self) -> bool:
        """Whether a passphrase is needed."""
        if self._label.strip() != b"OPENSSH":
            return b"ENCRYPTED" in self._label or b"ENCRYPTED" in self._body
        try:
            blob = base64.b64decode(self._body)
        except (binascii.Error, ValueError):
            return False
        if not blob.startswith(_MAGIC):
            return False
        start = len(_MAGIC) + 4
        length = int.from_bytes(blob[len(_MAGIC) : start], "big")
        return blob[start : start + length] != b"none"

    def load(self, passphrase: str | None = None) -> Any:
        """Return the key as paramiko wants it, with the certificate beside it when there is one.

        Raises:
            WrongPassphrase: It is encrypted, and not with this one.
            EnvironmentProblem: It is damaged, or of a kind that is not supported.
        """
        from cryptography.exceptions import UnsupportedAlgorithm

        secret = passphrase.encode() if passphrase is not None and self.is_encrypted else None
        try:
            private = self._decrypted(secret)
            key = _for_paramiko(private)
        except (ValueError, TypeError) as error:
            if self.is_encrypted:
                raise WrongPassphrase from error
            raise EnvironmentProblem(f"The key file {self.path} is damaged.", "Choose another key.") from error
        except UnsupportedAlgorithm as error:
            raise EnvironmentProblem(
                f"The key in {self.path} is of a kind that is not supported.", "Use an ed25519, ECDSA or RSA key."
            ) from error
        certificate = self.path.with_name(f"{self.path.name}-cert.pub")
        if certificate.is_file():
            key.load_certificate(str(certificate))
        return key

    def _decrypted(self, secret: bytes | None) -> Any:
        from cryptography.hazmat.primitives import serialization

        if self._label.strip() == b"OPENSSH":
            return serialization.load_ssh_private_key(self._data, secret)
        return serialization.load_pem_private_key(self._data, secret)


def public_blob(path: Path) -> bytes | None:
    """Return the public key in a ``.pub`` file, as an agent names its keys; None when there is none."""
    try:
        fields = path.read_text("utf-8", "replace").split()
        return base64.b64decode(fields[1], validate=True) if len(fields) > 1 else None
    except (OSError, binascii.Error, ValueError):
        return None


def _for_paramiko(private: Any) -> Any:
    """Hand it over decrypted: paramiko would run the slow key derivation a second and a third time."""
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    classes = {
        rsa.RSAPrivateKey: paramiko.RSAKey,
        ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
        ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
    }
    for kind, key_class in classes.items():
        if isinstance(private, kind):
            text = private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            return key_class.from_private_key(io.StringIO(text.decode()))
    raise UnsupportedAlgorithm("neither RSA nor ECDSA nor ed25519")


def _what_else(data: bytes) -> str:
    if data.startswith(b"PuTTY-User-Key-File"):
        return "It is a PuTTY key: export it as an OpenSSH key with PuTTYgen."
    if data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return "It is the public half: choose the file without .pub."
    return "Choose a file that ssh-keygen made."
