"""A user at the other end of ``Asker`` who has answers ready, and remembers what was asked."""

from __future__ import annotations

from core.contracts.hosts import HostKeyQuestion, SecretAnswer, SecretQuestion


class AnsweringUser:
    """Answers in turn; refuses what it has no answer for.

    Attributes:
        asked: All questions in their order.
    """

    def __init__(self, *secrets: str, trusts: bool = False, keep: bool = False) -> None:
        self.secrets = list(secrets)
        self.trusts = trusts
        self.keep = keep
        self.asked: list[HostKeyQuestion | SecretQuestion] = []

    def trust_host_key(self, question: HostKeyQuestion) -> bool:
        self.asked.append(question)
        return self.trusts

    def secret(self, question: SecretQuestion) -> SecretAnswer | None:
        self.asked.append(question)
        return SecretAnswer(secret=self.secrets.pop(0), keep=self.keep) if self.secrets else None
