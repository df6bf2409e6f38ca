"""Keyboard-interactive: what the server asks is put to the user, or answered with a password that is known."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from core.contracts.errors import Cancelled
from core.contracts.hosts import SecretAnswer, SecretQuestion
from core.ssh.config import Target
from core.ssh.login import Login

_PASSWORD_PROMPT = re.compile(r"passwor[dt]|kennwort|mot de passe|contraseña", re.IGNORECASE)


class Prompts:
    """Answers what a server asks in keyboard-interactive."""

    def __init__(self, target: Target, login: Login, ask: Callable[[SecretQuestion], SecretAnswer | None]) -> None:
        self._target = target
        self._login = login
        self._ask = ask
        self._is_retry = False
        self._to_keep = ""
        self._used_kept = False
        self.was_refused = False

    def begin(self, *, is_retry: bool) -> None:
        """Start another round."""
        self._is_retry = is_retry
        self._to_keep = ""
        self.was_refused = False
        if is_retry:
            self._login.answers.passwords.pop(self._target.login, None)
        if self._used_kept:
            self._login.secrets.forget("password", self._target.login)
            self._used_kept = False

    def answer(self, title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        """Return the answers; called by paramiko on the connection's thread."""
        del title, instructions
        return [self._one(shown(text), echo) for text, echo in prompts] if not self.was_refused else [""]

    def _one(self, text: str, echo: bool) -> str:
        about = self._target.login
        is_password = not echo and _PASSWORD_PROMPT.search(text) is not None
        if is_password and not self._is_retry:
            kept = self._login.secrets.get("password", about)
            known = self._login.answers.passwords.get(about) or kept
            if known is not None:
                self._used_kept = known == kept
                return known
        question = SecretQuestion(
            kind="password" if is_password else "prompt",
            about=about if is_password else text,
            host=self._target.name,
            is_retry=self._is_retry,
            echo=echo,
            can_keep=is_password,
        )
        try:
            answer = self._ask(question)
        except Cancelled:
            answer = None  # this is the connection's own thread; the caller's sees the cancel itself
        if answer is None:
            self.was_refused = True
            return ""
        if is_password:
            self._login.answers.passwords[about] = answer.secret
            self._to_keep = answer.secret if answer.keep else ""
        return answer.secret

    def keep(self) -> None:
        """Keep the password, now that it proved right."""
        if self._to_keep:
            self._login.secrets.put("password", self._target.login, self._to_keep)


def shown(text: str) -> str:
    """Return what a host sent as harmless text of one line."""
    return "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text).strip()[:300]
