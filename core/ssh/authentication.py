"""Logging in: keys one at a time, then password or keyboard-interactive, in as many steps as the server asks.

Keys that need no question come first. Passphrases and passwords are taken from the kept secrets, else asked for;
they are kept only when they proved right and the user wished it. Nothing here is logged but names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.contracts.errors import Cancelled, EnvironmentProblem
from core.contracts.hosts import SecretAnswer, SecretQuestion
from core.ssh.agent_keys import Agent
from core.ssh.config import Target
from core.ssh.key_files import KeyFile, WrongPassphrase, public_blob
from core.ssh.login import Login, SessionExpired
from core.ssh.problems import Refused
from core.ssh.prompts import Prompts, shown

MAX_KEYS = 5
"""Servers close after 6 attempts (MaxAuthTries); one is left for a password."""
MAX_TRIES = 3
TYPING_TIMEOUT_S = 600.0


class Authentication:
    """One log-in on one transport."""

    def __init__(self, transport: Any, target: Target, login: Login) -> None:
        self._transport = transport
        self._target = target
        self._login = login
        self._tried: list[str] = []
        self._notes: list[str] = []

    def run(self) -> None:
        """Log in.

        Raises:
            Refused: The server took none of what there was; with what was tried.
            Cancelled: The user cancelled.
            SessionExpired: The server closed while the user was asked.
        """
        from paramiko import SSHException

        try:
            self._run()
        except (SSHException, EOFError, OSError) as error:
            if self._login.is_cancelled():
                raise Cancelled from error
            if self._login.answers.was_asked and not self._transport.is_active():
                raise SessionExpired from error
            raise self._refused(()) from error

    def _run(self) -> None:
        allowed = self._offered()
        used: set[str] = set()
        while not self._transport.is_authenticated():
            for method in ("publickey", "password", "keyboard-interactive"):
                if method in allowed and method not in used:
                    break
            else:
                raise self._refused(allowed)
            further = self._by(method, allowed)
            used.add(method)
            if further is not None:
                allowed, used = further, set()

    def _by(self, method: str, allowed: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the methods that the server wants next, None when this one failed."""
        if method == "publickey":
            return self._by_keys()
        if method == "password":
            # One try: a server with a second factor refuses the right password here, and asks properly below.
            return self._by_password(1 if "keyboard-interactive" in allowed else MAX_TRIES)
        return self._by_prompts()

    def _offered(self) -> tuple[str, ...]:
        from paramiko import BadAuthenticationType

        try:
            return tuple(self._transport.auth_none(self._target.user))
        except BadAuthenticationType as error:
            return tuple(error.allowed_types)

    # Keys

    def _by_keys(self) -> tuple[str, ...] | None:
        agent = Agent(self._target.agent)
        try:
            for count, (name, key) in enumerate(self._candidates(agent)):
                if count == MAX_KEYS:
                    self._notes.append(f"Only the first {MAX_KEYS} keys were offered: choose the host's key.")
                    return None
                self._check_cancelled()
                self._tried.append(name)
                further = self._attempt(self._transport.auth_publickey, self._target.user, key)
                if further is not None:
                    return further
        finally:
            agent.close()
        return None

    def _candidates(self, agent: Agent) -> Iterator[tuple[str, Any]]:
        """Yield names and keys, those first that the user named and that need no question."""
        files = self._target.identity_files
        named = {blob for file in files for blob in (public_blob(_public(file)), public_blob(file)) if blob}
        mine = [key for key in agent.keys if key.asbytes() in named or key.blob in named]
        others = [] if self._target.only_these or self._target.is_explicit else [k for k in agent.keys if k not in mine]
        for key in mine:
            yield _agent_name(key), key
        held = {key.asbytes() for key in mine}
        opened = [file for file in self._key_files() if public_blob(_public(file.path)) not in held]
        for file in opened:
            if not file.is_encrypted or file.path in self._login.answers.keys:
                yield str(file.path), self._login.answers.keys.get(file.path) or file.load()
        for key in others:
            yield _agent_name(key), key
        for file in opened:
            if file.is_encrypted and file.path not in self._login.answers.keys:
                key = self._unlocked(file)
                if key is not None:
                    yield str(file.path), key

    def _key_files(self) -> list[KeyFile]:
        found: list[KeyFile] = []
        for path in self._target.identity_files:
            if path.suffix == ".pub":
                continue  # names a key of the agent
            try:
                file = KeyFile(path)
                if not file.is_encrypted:
                    self._login.answers.keys.setdefault(path, file.load())
            except EnvironmentProblem as problem:
                if self._target.is_explicit:
                    self._notes.append(str(problem))
                continue
            found.append(file)
        return found

    def _unlocked(self, file: KeyFile) -> Any:
        """Return the decrypted key; None when the user would not say its passphrase."""
        login, about = self._login, str(file.path)
        if file.path in login.answers.refused_keys:
            return None
        kept = login.secrets.get("passphrase", about)
        if kept is not None:
            try:
                login.answers.keys[file.path] = file.load(kept)
                return login.answers.keys[file.path]
            except WrongPassphrase:
                login.secrets.forget("passphrase", about)
        for attempt in range(MAX_TRIES):
            question = SecretQuestion(
                kind="passphrase", about=about, host=self._target.name, is_retry=kept is not None or attempt > 0
            )
            answer = self._ask(question)
            if answer is None:
                login.answers.refused_keys.add(file.path)
                self._notes.append(f"The passphrase of {about} was not given.")
                return None
            try:
                login.answers.keys[file.path] = file.load(answer.secret)
            except WrongPassphrase:
                continue
            if answer.keep:
                login.secrets.put("passphrase", about, answer.secret)
            return login.answers.keys[file.path]
        login.answers.refused_keys.add(file.path)
        raise Refused(f"The passphrase of the key {about} is wrong.", "Try again with the right one.")

    # Passwords

    def _by_password(self, tries: int) -> tuple[str, ...] | None:
        about = self._target.login
        is_retry = False
        for secret, keep in self._passwords(tries):
            if secret is None:
                self._notes.append("The password was not given.")
                raise self._refused(())
            if not is_retry:
                self._tried.append("password")
            further = self._attempt(self._transport.auth_password, self._target.user, secret, None, False)
            if further is not None:
                self._login.answers.passwords[about] = secret
                if keep:
                    self._login.secrets.put("password", about, secret)
                return further
            is_retry = True
        return None

    def _passwords(self, tries: int) -> Iterator[tuple[str | None, bool]]:
        """Yield what may be the password and whether to keep it; a wrong kept one is dropped."""
        about = self._target.login
        known = self._login.answers.passwords.get(about)
        if known is not None:
            yield known, False
            self._login.answers.passwords.pop(about, None)
        kept = self._login.secrets.get("password", about)
        if kept is not None:
            yield kept, False
            self._login.secrets.forget("password", about)
        is_retry = kept is not None
        for _ in range(tries):
            question = SecretQuestion(kind="password", about=about, host=self._target.name, is_retry=is_retry)
            answer = self._ask(question)
            yield (None, False) if answer is None else (answer.secret, answer.keep)
            is_retry = True

    def _by_prompts(self) -> tuple[str, ...] | None:
        prompts = Prompts(self._target, self._login, self._ask)
        self._tried.append("keyboard-interactive")
        before, self._transport.auth_timeout = self._transport.auth_timeout, TYPING_TIMEOUT_S
        try:
            for attempt in range(MAX_TRIES):
                prompts.begin(is_retry=attempt > 0)
                further = self._attempt(self._transport.auth_interactive, self._target.user, prompts.answer)
                if further is not None:
                    prompts.keep()
                    return further
                self._check_cancelled()
                if prompts.was_refused:
                    self._notes.append("What the host asked was not answered.")
                    raise self._refused(())
        finally:
            self._transport.auth_timeout = before
        return None

    # Common

    def _attempt(self, method: Callable[..., list[str]], *arguments: Any) -> tuple[str, ...] | None:
        """Return what the server wants next (empty when that was all); None when it refused."""
        from paramiko import AuthenticationException

        try:
            return tuple(method(*arguments))
        except AuthenticationException:
            if not self._transport.is_active():
                raise
            return None

    def _ask(self, question: SecretQuestion) -> SecretAnswer | None:
        self._check_cancelled()
        self._login.answers.was_asked = True
        answer = self._login.asker.secret(question)
        self._check_cancelled()
        return answer

    def _check_cancelled(self) -> None:
        if self._login.is_cancelled():
            raise Cancelled

    def _refused(self, allowed: tuple[str, ...]) -> Refused:
        tried = f"Tried: {', '.join(dict.fromkeys(self._tried))}." if self._tried else "There was nothing to try."
        wants = f"The host takes: {', '.join(allowed)}." if allowed else ""
        remedy = "Check the user name, and that the key's public half is in ~/.ssh/authorized_keys there."
        hint = " ".join(text for text in (*self._notes, tried, wants, remedy) if text)
        return Refused(f"{self._target.name} refused the log-in of {self._target.login}.", hint)


def _public(path: Path) -> Path:
    return path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")


def _agent_name(key: Any) -> str:
    return f"agent key {shown(key.comment) or key.get_name()}"
