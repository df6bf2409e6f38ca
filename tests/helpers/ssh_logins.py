"""Words of the tests that log in to SSH servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.security.secrets import FileSecrets
from core.ssh.connection import SshLink, connect
from tests.helpers.answering_user import AnsweringUser
from tests.helpers.ssh_server import PasswordServer, SshServer, opened_ssh_server


@contextmanager
def server_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """Yield a running sshd; the user who logs in has neither an agent nor files of his own."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    with opened_ssh_server(tmp_path) as found:
        yield found


def opened(server: SshServer | PasswordServer, user: AnsweringUser, secrets: FileSecrets, **fields: object) -> SshLink:
    """Connect to a server whose key is known."""
    return connect(server.record(**fields), asker=user, secrets=secrets, known_hosts=server.known_hosts)


def works(link: SshLink) -> bool:
    """Run a command, close the link, and tell whether it ran."""
    try:
        return link.run(["echo", "in"]).stdout == b"in\n"
    finally:
        link.close()
