"""What kubectl and the API server say when they refuse, as one plain sentence and a remedy each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.contracts.errors import EnvironmentProblem


@dataclass(frozen=True, slots=True)
class _Rule:
    """A pattern in the message; ``{0}`` ... stand for its groups, ``{context}`` for the context's name."""

    pattern: re.Pattern[str]
    topic: str
    message: str
    hint: str


def _rule(pattern: str, topic: str, message: str, hint: str) -> _Rule:
    return _Rule(re.compile(pattern, re.DOTALL | re.IGNORECASE), topic, message, hint)


_RULES = (
    _rule(
        r"context \"?([^\"\n]*)\"? does not exist",
        "context",
        "There is no context {0!r} in your kubeconfig.",
        "List them with: kubectl config get-contexts",
    ),
    _rule(
        r"executable (\S+) not found|exec: \"?([^\":\s]+)\"?: executable file not found",
        "plugin",
        "The credential plug-in {0!r} that your kubeconfig names is not on this machine.",
        "Install it and put it on the PATH, then try: kubectl get pods",
    ),
    _rule(
        r"getting credentials: exec: (.*)",
        "plugin",
        "The credential plug-in of your kubeconfig failed: {0}",
        "Sign in again with your provider's own command line, then try: kubectl get pods",
    ),
    _rule(
        r"exceeded quota: ([^,\n]+)(?:, (requested: [^\n]*))?",
        "quota",
        "The namespace's quota {0} is used up ({1}).",
        "Ask for less, end other work there, or ask for a higher quota.",
    ),
    _rule(
        r"admission webhook \"([^\"]+)\" denied the request:? ?([^\n]*)",
        "admission",
        "The cluster's rule {0} refused it: {1}",
        "Change what is asked accordingly, or ask the cluster's owner.",
    ),
    _rule(
        r"unauthorized|must be logged in|asked for the client to provide credentials|error: You must be logged in",
        "unauthorized",
        "The cluster does not know you: your credentials are missing or have expired (401).",
        "Sign in again with your provider's own command line, then try: kubectl get pods --context={context}",
    ),
    _rule(
        r"forbidden[^\n]*?: (User [^\n]*)|\(Forbidden\):? ?([^\n]*)",
        "forbidden",
        "The cluster does not allow that (403): {0}",
        "Ask the cluster's owner for a role with that right in this namespace.",
    ),
    _rule(
        r"namespaces \"([^\"]+)\" not found",
        "namespace",
        "There is no namespace {0!r} on the cluster.",
        "Choose one that exists: kubectl get namespaces",
    ),
    _rule(
        r"no matches for kind \"([^\"]+)\" in version \"([^\"]+)\"",
        "kind",
        "The cluster does not serve {0} ({1}).",
        "Choose the form 'job', which needs no operator, or have the operator installed.",
    ),
    _rule(
        r"Apply failed with \d+ conflicts?: ([^\n]*)|\(Conflict\):? ?([^\n]*)|AlreadyExists\):? ?([^\n]*)",
        "conflict",
        "Something else on the cluster has changed or made the same object (409): {0}",
        "Delete the run there and launch it again.",
    ),
    _rule(
        r"\(Gone\)|\(Expired\)|too old resource version",
        "gone",
        "The cluster no longer has that state to go on from (410).",
        "It is asked anew by itself; if this stays, try again later.",
    ),
    _rule(
        r"(?:is invalid|strict decoding error): ?([^\n]*)",
        "invalid",
        "The cluster found the manifest invalid: {0}",
        "Correct the field that is named.",
    ),
    _rule(
        r"x509: ([^\n]*)|tls: ([^\n]*)",
        "certificate",
        "The cluster's certificate is not accepted: {0}",
        "Renew the cluster's entry in your kubeconfig.",
    ),
    _rule(
        r"Client\.Timeout|context deadline exceeded|timeout awaiting|i/o timeout|Timeout: |net/http: request canceled",
        "timeout",
        "The cluster did not answer in time.",
        "Check the VPN and the network, then try: kubectl get pods --context={context}",
    ),
    _rule(
        r"no such host|connection refused|network is unreachable|no route to host|Unable to connect|EOF|connection reset",
        "unreachable",
        "The cluster cannot be reached.",
        "Check the VPN and the network, then try: kubectl get pods --context={context}",
    ),
    _rule(
        r"\(NotFound\):? ?([^\n]*)",
        "not_found",
        "The cluster has no such object: {0}",
        "It was deleted meanwhile, or never made.",
    ),
    _rule(
        r"error loading config file|invalid configuration|couldn't get current server API group list: the server",
        "config",
        "Your kubeconfig cannot be used.",
        "Try it with: kubectl get pods --context={context}",
    ),
)


class ClusterRefusal(EnvironmentProblem):
    """The cluster or kubectl refused.

    Attributes:
        topic: Why, in a word for programs: ``unauthorized``, ``forbidden``, ``conflict``, ``gone``, ``timeout``, ...;
            ``other`` for what is not known.
    """

    def __init__(self, message: str, hint: str, topic: str) -> None:
        super().__init__(message, hint)
        self.topic = topic


def explain(stderr: str, context: str = "") -> ClusterRefusal:
    """Return the error for what kubectl wrote to stderr."""
    shown = context or "your-context"
    for rule in _RULES:
        found = rule.pattern.search(stderr)
        if found is not None:
            groups = [_one_line(group) for group in found.groups() if group] + ["", ""]
            message = rule.message.format(*groups, context=shown).replace(" ()", "").rstrip(": .")
            return ClusterRefusal(f"{message}.", rule.hint.format(*groups, context=shown), rule.topic)
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith(("W", "I", "E0"))]
    said = _one_line(lines[-1] if lines else stderr).rstrip(".") or "it said nothing"
    return ClusterRefusal(f"kubectl failed: {said}.", f"Try it with: kubectl get pods --context={shown}", "other")


def too_slow(limit_s: float) -> ClusterRefusal:
    """Return the error for a kubectl that was ended after a time limit."""
    return ClusterRefusal(
        f"kubectl did not finish within {limit_s:g} s and was ended.",
        "Check the VPN, the network and the credential plug-in: kubectl get pods",
        "timeout",
    )


def _one_line(text: str) -> str:
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:400]
