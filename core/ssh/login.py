"""What logging in needs besides the connection: whom to ask, where secrets are kept, and what was answered so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.contracts.hosts import Asker


class KeptSecrets(Protocol):
    """Where secrets are kept: ``core.security.secrets``, seen from here."""

    def get(self, kind: str, about: str) -> str | None:
        """Return a kept secret."""
        ...

    def put(self, kind: str, about: str, secret: str) -> None:
        """Keep a secret."""
        ...

    def forget(self, kind: str, about: str) -> None:
        """Drop a secret."""
        ...


class SessionExpired(Exception):
    """The server closed while the user was typing: connect again, the answers are at hand."""


@dataclass
class Answers:
    """What the user and the keyring gave during one ``connect``, over all its attempts. Never shown."""

    keys: dict[Path, Any] = field(default_factory=dict[Path, Any], repr=False)
    refused_keys: set[Path] = field(default_factory=set[Path])
    passwords: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    was_asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """All that logging in needs besides the connection."""

    asker: Asker
    secrets: KeptSecrets
    answers: Answers
    is_cancelled: Callable[[], bool]
