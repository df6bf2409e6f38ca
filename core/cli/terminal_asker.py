"""Asks on the terminal what a connection needs to know, and shows how far long work is; never waits without a terminal."""

from __future__ import annotations

import getpass
import signal
import sys
from types import FrameType, TracebackType

from core.contracts.hosts import HostKeyQuestion, Progress, SecretAnswer, SecretQuestion


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class TerminalAsker:
    """An ``Asker`` on the terminal; refuses where there is none."""

    def __init__(self, *, trust_keys: bool = False) -> None:
        """Trust unknown keys without asking when ``trust_keys`` says so; secrets are always asked."""
        self._trust_keys = trust_keys

    def trust_host_key(self, question: HostKeyQuestion) -> bool:
        """Show the fingerprint and ask."""
        new = "has a new key of another type" if question.is_new_type else "is not known yet"
        _say(f"The host {question.host} {new}: {question.key_type} {question.fingerprint}")
        if self._trust_keys:
            _say("It is trusted from now on (--yes).")
            return True
        if not sys.stdin.isatty():
            _say("Nobody can be asked here; to trust it: pilothouse hosts trust NAME --yes")
            return False
        sys.stderr.write("Trust it from now on? Compare the fingerprint first. [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def secret(self, question: SecretQuestion) -> SecretAnswer | None:
        """Ask for a secret without showing it."""
        if not sys.stdin.isatty():
            _say(f"A {question.kind} is needed for {question.about}, and nobody can be asked here.")
            return None
        if question.is_retry:
            _say("That was wrong.")
        name = {"passphrase": "Passphrase of", "password": "Password of"}.get(question.kind, "")
        prompt = f"{name} {question.about}: ".lstrip()
        try:
            secret = self._echoed(prompt) if question.echo else getpass.getpass(prompt)
        except EOFError:
            return None
        keep = question.can_keep and self._echoed("Keep it in the keyring? [y/N] ").lower() in {"y", "yes"}
        return SecretAnswer(secret=secret, keep=keep)

    @staticmethod
    def _echoed(prompt: str) -> str:
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


class TerminalWatcher:
    """A ``Watcher`` that writes stages and log lines to stderr; Ctrl+C cancels once, and interrupts the second time."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stage = ""
        self._is_cancelled = False
        self._before = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> TerminalWatcher:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._is_cancelled:
            raise KeyboardInterrupt
        self._is_cancelled = True
        _say("Cancelling; what is half done is removed.")

    def report(self, progress: Progress) -> None:
        """Write what is new."""
        if self._quiet:
            return
        if progress.stage != self._stage:
            self._stage = progress.stage
            _say(progress.stage)
        if progress.line:
            _say(f"  {progress.line}")

    def is_cancelled(self) -> bool:
        """Return whether Ctrl+C was pressed."""
        return self._is_cancelled
