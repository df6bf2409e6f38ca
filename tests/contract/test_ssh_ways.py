"""Which hosts are trusted, the ways to them, what does not answer, and the limits of servers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import HostKeyQuestion, HostRecord, NobodyToAsk, SecretQuestion
from core.security.secrets import FileSecrets
from core.ssh.connection import connect
from core.ssh.problems import Refused, Unreachable
from tests.helpers.answering_user import AnsweringUser
from tests.helpers.ssh_logins import opened, server_for_nobody, works
from tests.helpers.ssh_server import (
    SshServer,
    free_port,
    keygen,
    opened_password_server,
    opened_ssh_server,
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    with server_for_nobody(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def secrets(tmp_path: Path) -> FileSecrets:
    return FileSecrets(tmp_path / "secrets.json")


# Keys of hosts


def test_an_unknown_host_is_asked_about_and_remembered_by_us_only(
    server: SshServer, secrets: FileSecrets, tmp_path: Path
) -> None:
    own = tmp_path / "home" / "known_hosts"
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(server.folder / "host_ed25519.pub")], capture_output=True, check=True, text=True
    ).stdout
    record = server.record()
    with pytest.raises(Refused, match="not known"):
        connect(record, asker=AnsweringUser(), secrets=secrets, known_hosts=own)
    assert not own.exists()
    user = AnsweringUser(trusts=True)
    assert works(connect(record, asker=user, secrets=secrets, known_hosts=own))
    (question,) = user.asked
    assert isinstance(question, HostKeyQuestion)
    assert question.fingerprint == shown.split()[1]
    assert (question.key_type, question.is_new_type) == ("ssh-ed25519", False)
    assert question.host == f"box ([127.0.0.1]:{server.port})"
    assert own.read_text() == f"[127.0.0.1]:{server.port} {server.host_key}\n"
    assert works(connect(record, asker=NobodyToAsk(), secrets=secrets, known_hosts=own))
    assert not (Path.home() / ".ssh" / "known_hosts").exists()


def test_a_changed_key_is_refused_and_explained_without_a_question(server: SshServer, secrets: FileSecrets) -> None:
    server.stop()
    server.new_host_key()
    server.start()
    user = AnsweringUser("secret", trusts=True)
    with pytest.raises(Refused, match="is not the one it had") as caught:
        opened(server, user, secrets)
    assert user.asked == []
    assert f"line 1 of {server.known_hosts}" in caught.value.message
    command = caught.value.hint.partition("forget the old key: ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
    assert works(opened(server, AnsweringUser(trusts=True), secrets)), "the remedy does not work"


def test_a_host_known_by_another_type_of_key_is_not_an_attack(
    server: SshServer, secrets: FileSecrets, tmp_path: Path
) -> None:
    server.stop()
    server.new_host_key("ecdsa")
    server.start()
    user = AnsweringUser(trusts=True)
    assert works(opened(server, user, secrets))
    (question,) = user.asked
    assert isinstance(question, HostKeyQuestion)
    assert question.is_new_type


def test_the_type_by_which_a_host_is_known_is_asked_for_first(tmp_path: Path, secrets: FileSecrets) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    rsa = keygen(folder / "rsa", "rsa")
    with opened_ssh_server(tmp_path, more=f"HostKey {rsa}") as server:
        kind, text = (folder / "rsa.pub").read_text().split()[:2]
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {text}\n")
        user = AnsweringUser()
        assert works(opened(server, user, secrets))
        assert user.asked == []


# Ways to get there


def test_a_host_behind_another_is_reached_over_it(tmp_path: Path, server: SshServer, secrets: FileSecrets) -> None:
    port, known = server.port, server.known_hosts
    config = tmp_path / "config"
    config.write_text(
        f"Host edge inner\n  HostName 127.0.0.1\n  Port {port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity}\nHost inner\n  ProxyJump edge\n"
    )
    link = connect(
        HostRecord(name="box", alias="inner"),
        asker=NobodyToAsk(),
        secrets=secrets,
        known_hosts=known,
        config_file=config,
    )
    assert link.probe() < 5
    sessions = server.log.read_text().count("Accepted publickey")
    assert works(link)
    assert sessions == 2


def test_a_hop_that_cannot_go_on_is_named(tmp_path: Path, server: SshServer, secrets: FileSecrets) -> None:
    hop = f"{server.user}@127.0.0.1:{server.port}"
    config = tmp_path / "config"
    config.write_text(f"Host *\n  IdentityFile {server.identity}\n")
    record = HostRecord(name="box", address="127.0.0.1", port=free_port(), jump=(hop,))
    with pytest.raises(Unreachable, match="from the host that is hopped over"):
        connect(record, asker=NobodyToAsk(), secrets=secrets, known_hosts=server.known_hosts, config_file=config)


def test_a_proxy_command_is_the_way(tmp_path: Path, server: SshServer, secrets: FileSecrets) -> None:
    relay = tmp_path / "re lay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n    while b := os.read(0, 65536): s.sendall(b)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while b := s.recv(65536): os.write(1, b)\n"
    )
    config = tmp_path / "config"
    config.write_text(
        f"Host far\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity}\n  ProxyCommand '{sys.executable}' '{relay}' %h %p\n"
    )
    record = HostRecord(name="box", alias="far")
    link = connect(record, asker=NobodyToAsk(), secrets=secrets, known_hosts=server.known_hosts, config_file=config)
    assert works(link)
    config.write_text(config.read_text().replace("ProxyCommand", "ProxyCommand false"))
    with pytest.raises(Unreachable, match="ProxyCommand"):
        connect(record, asker=NobodyToAsk(), secrets=secrets, known_hosts=server.known_hosts, config_file=config)


@pytest.mark.parametrize("key_alias", ["the-name"])
def test_a_host_key_alias_is_the_name_it_is_known_by(
    tmp_path: Path, server: SshServer, secrets: FileSecrets, key_alias: str
) -> None:
    (tmp_path / "known").write_text(f"{key_alias} {server.host_key}\n")
    config = tmp_path / "config"
    config.write_text(
        f"Host far\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity}\n  HostKeyAlias {key_alias}\n"
        f"  UserKnownHostsFile /dev/null {tmp_path}/known\n"
    )
    assert works(
        connect(
            HostRecord(name="box", alias="far"),
            asker=NobodyToAsk(),
            secrets=secrets,
            known_hosts=tmp_path / "own",
            config_file=config,
        )
    )


# What does not answer


def test_nothing_there_is_told_at_once(secrets: FileSecrets, tmp_path: Path) -> None:
    for record, words in (
        (HostRecord(name="box", address="127.0.0.1", port=free_port()), "nothing listens"),
        (HostRecord(name="box", address="no-such-host.invalid"), "not known here"),
    ):
        with pytest.raises(Unreachable, match=words):
            connect(record, asker=NobodyToAsk(), secrets=secrets, known_hosts=tmp_path / "own")
    with pytest.raises(UserError):
        connect(HostRecord(name="box"), asker=NobodyToAsk(), secrets=secrets, known_hosts=tmp_path / "own")


@pytest.fixture(params=[b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 100_000])
def no_ssh_server(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port at which something listens that does not speak SSH."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    taken.append(connection)
                    connection.sendall(request.param)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


def test_something_else_at_the_port_is_told(no_ssh_server: int, secrets: FileSecrets, tmp_path: Path) -> None:
    record = HostRecord(name="box", address="127.0.0.1", port=no_ssh_server, connect_timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="does not answer as an SSH server"):
        connect(record, asker=NobodyToAsk(), secrets=secrets, known_hosts=tmp_path / "own")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("no_ssh_server", [b""], indirect=True)
def test_connecting_can_be_cancelled(no_ssh_server: int, secrets: FileSecrets, tmp_path: Path) -> None:
    record = HostRecord(name="box", address="127.0.0.1", port=no_ssh_server, connect_timeout_s=60.0)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        connect(
            record,
            asker=NobodyToAsk(),
            secrets=secrets,
            known_hosts=tmp_path / "own",
            is_cancelled=lambda: time.monotonic() > began + 0.5,
        )
    assert time.monotonic() - began < 10


def test_cancel_at_a_question_ends_it(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path) as server:
        user = AnsweringUser()
        with pytest.raises(Cancelled):
            connect(
                server.record(),
                asker=user,
                secrets=secrets,
                known_hosts=server.known_hosts,
                is_cancelled=lambda: bool(user.asked),
            )


def test_a_server_that_lost_patience_is_connected_to_again(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path) as server:

        class SlowUser(AnsweringUser):
            def secret(self, question: SecretQuestion):
                if len(server.transports) == 1:
                    server.transports[0].close()
                return super().secret(question)

        user = SlowUser(server.password, server.password)
        assert works(opened(server, user, secrets))
        assert len(server.transports) == 2


# Limits of servers


def test_a_server_that_allows_few_sessions_is_waited_for(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_ssh_server(tmp_path, more="MaxSessions 2") as server:
        link = opened(server, AnsweringUser(), secrets)
        results: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: results.append(link.run(["/bin/sh", "-c", "sleep 0.2; echo 1"]).stdout))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [b"1\n"] * 6
        held = [link.start(["cat"]), link.start(["cat"])]
        with pytest.raises(EnvironmentProblem, match="no further session"):
            link.run(["true"], timeout_s=1)
        for process in held:
            process.close()
        assert works(link)


def test_a_server_without_sftp_is_told(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path) as server:
        link = opened(server, AnsweringUser(server.password), secrets)
        with pytest.raises(EnvironmentProblem, match="does not offer SFTP"):
            link.stat("/tmp")
        assert works(link)


def test_small_commands_do_not_wait_for_acknowledgements(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path) as server:
        link = opened(server, AnsweringUser(server.password), secrets)
        connection = link._chain.transport.sock
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert 0 < connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 10_000
        link.close()
