"""Logging in to real servers: keys, agents, passwords, prompts, host keys, ways over other programs."""

from __future__ import annotations

import os
import shutil
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
from core.ssh.connection import SshLink, connect
from core.ssh.problems import Refused, Unreachable
from tests.helpers.answering_user import AnsweringUser
from tests.helpers.ssh_server import (
    PasswordServer,
    SshServer,
    free_port,
    keygen,
    opened_password_server,
    opened_ssh_server,
)
from tests.helpers.waiting import wait_for


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    with opened_ssh_server(tmp_path) as found:
        yield found


@pytest.fixture
def secrets(tmp_path: Path) -> FileSecrets:
    return FileSecrets(tmp_path / "secrets.json")


def opened(server: SshServer | PasswordServer, user: AnsweringUser, secrets: FileSecrets, **fields: object) -> SshLink:
    return connect(server.record(**fields), asker=user, secrets=secrets, known_hosts=server.known_hosts)


def works(link: SshLink) -> bool:
    try:
        return link.run(["echo", "in"]).stdout == b"in\n"
    finally:
        link.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """A real ssh-agent without keys; its socket."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("not installed: ssh-agent (package openssh-client)")
    path = str(tmp_path / "agent.sock")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    wait_for(lambda: Path(path).exists(), "the agent")
    yield path
    process.terminate()
    process.wait(10)


def add_to_agent(agent: str, key: Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": agent}
    subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True, capture_output=True, timeout=20)


# Keys


@pytest.mark.parametrize("key_type", ["ed25519", "ecdsa", "rsa"])
def test_every_usual_kind_of_key_logs_in(
    server: SshServer, secrets: FileSecrets, tmp_path: Path, key_type: str
) -> None:
    key = keygen(tmp_path / "k e'y", key_type)
    server.authorize(key)
    assert works(opened(server, AnsweringUser(), secrets, identity_file=str(key)))


def test_a_passphrase_is_asked_kept_and_not_asked_again(
    server: SshServer, secrets: FileSecrets, tmp_path: Path
) -> None:
    key = keygen(tmp_path / "locked", passphrase="it's $(right)")
    server.authorize(key)
    user = AnsweringUser("wrong", "it's $(right)", keep=True)
    assert works(opened(server, user, secrets, identity_file=str(key)))
    about = str(key)
    assert user.asked == [
        SecretQuestion(kind="passphrase", about=about, host="box"),
        SecretQuestion(kind="passphrase", about=about, host="box", is_retry=True),
    ]
    assert secrets.get("passphrase", about) == "it's $(right)"
    silent = AnsweringUser()
    assert works(opened(server, silent, secrets, identity_file=str(key)))
    assert silent.asked == []


def test_an_encrypted_rsa_key_in_pem_is_read(server: SshServer, secrets: FileSecrets, tmp_path: Path) -> None:
    key = tmp_path / "pem"
    words = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "secret", "-f", str(key)]
    subprocess.run(words, check=True, timeout=60)
    server.authorize(key)
    assert works(opened(server, AnsweringUser("secret"), secrets, identity_file=str(key)))


def test_a_wrong_passphrase_is_told_and_not_kept(server: SshServer, secrets: FileSecrets, tmp_path: Path) -> None:
    key = keygen(tmp_path / "locked", passphrase="right")
    server.authorize(key)
    with pytest.raises(Refused, match="passphrase of the key .* is wrong"):
        opened(server, AnsweringUser("a", "b", "c", keep=True), secrets, identity_file=str(key))
    assert secrets.get("passphrase", str(key)) is None


def test_a_kept_passphrase_that_is_wrong_by_now_is_asked_for(
    server: SshServer, secrets: FileSecrets, tmp_path: Path
) -> None:
    key = keygen(tmp_path / "locked", passphrase="new")
    server.authorize(key)
    secrets.put("passphrase", str(key), "old")
    user = AnsweringUser("new")
    assert works(opened(server, user, secrets, identity_file=str(key)))
    assert [question.is_retry for question in user.asked if isinstance(question, SecretQuestion)] == [True]
    assert secrets.get("passphrase", str(key)) is None


def test_no_passphrase_given_is_a_refusal_that_names_the_key(
    server: SshServer, secrets: FileSecrets, tmp_path: Path
) -> None:
    key = keygen(tmp_path / "locked", passphrase="right")
    with pytest.raises(Refused) as caught:
        connect(
            server.record(identity_file=str(key)),
            asker=NobodyToAsk(),
            secrets=secrets,
            known_hosts=server.known_hosts,
        )
    assert str(key) in caught.value.hint


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (None, "cannot be read"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "PuTTYgen"),
        ("ssh-ed25519 AAAA me\n", "public half"),
        ("hello", "ssh-keygen made"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "damaged"),
    ],
)
def test_what_is_no_key_is_told(
    server: SshServer, secrets: FileSecrets, tmp_path: Path, text: str | None, remedy: str
) -> None:
    key = tmp_path / "strange"
    if text is not None:
        key.write_text(text)
    with pytest.raises(Refused) as caught:
        opened(server, AnsweringUser(), secrets, identity_file=str(key))
    assert remedy in caught.value.hint


def test_a_key_that_the_host_does_not_know_is_refused_with_what_was_tried(
    server: SshServer, secrets: FileSecrets, tmp_path: Path
) -> None:
    key = keygen(tmp_path / "stranger")
    before = threading.active_count()
    for _ in range(5):
        with pytest.raises(Refused, match="refused the log-in") as caught:
            opened(server, AnsweringUser(), secrets, identity_file=str(key))
        assert str(key) in caught.value.hint
        assert "publickey" in caught.value.hint
    wait_for(lambda: threading.active_count() <= before, "the threads of failed log-ins to end")


# Agents


def test_a_key_of_the_agent_logs_in(
    server: SshServer, secrets: FileSecrets, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    key = keygen(tmp_path / "held", passphrase="")
    server.authorize(key)
    add_to_agent(agent, key)
    assert works(opened(server, AnsweringUser(), secrets, identity_file=""))


def test_the_agents_key_spares_the_passphrase(
    server: SshServer, secrets: FileSecrets, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    key = keygen(tmp_path / "held")
    server.authorize(key)
    for number in range(8):
        add_to_agent(agent, keygen(tmp_path / f"other{number}"))
    add_to_agent(agent, key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "locked", "-f", str(key)], check=True, capture_output=True)
    user = AnsweringUser()
    assert works(opened(server, user, secrets, identity_file=str(key)))
    assert user.asked == []


def test_eight_keys_before_the_right_one_do_not_close_the_connection(
    server: SshServer, secrets: FileSecrets, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    for number in range(8):
        add_to_agent(agent, keygen(tmp_path / f"other{number}"))
    assert works(opened(server, AnsweringUser(), secrets)), "the host's own key is the one that is offered"
    with pytest.raises(Refused) as caught:
        opened(server, AnsweringUser(), secrets, identity_file="")
    assert "choose the host's key" in caught.value.hint


@pytest.fixture(params=["missing", "not a socket", "silent", "garbage", "closes"])
def broken_agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "broken.sock"
    if request.param == "not a socket":
        path.write_text("")
    if request.param in {"missing", "not a socket"}:
        yield str(path)
        return
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    taken: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            taken.append(connection)
            if request.param == "garbage":
                connection.sendall(b"\x00\x00\x00\x09\x0c\xff\xff\xff\xff1234")
            elif request.param == "closes":
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield str(path)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in taken:
        connection.close()


def test_a_broken_agent_never_aborts(
    server: SshServer, secrets: FileSecrets, broken_agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", broken_agent)
    assert works(opened(server, AnsweringUser(), secrets))


def test_an_agent_that_will_not_sign_does_not_abort(
    server: SshServer, secrets: FileSecrets, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    environment = {**os.environ, "SSH_AUTH_SOCK": agent}
    held = keygen(tmp_path / "held")
    server.authorize(held)
    add = ["ssh-add", "-q", "-c", str(held)]  # each use is to be confirmed, and nobody can
    subprocess.run(add, env=environment, check=True, capture_output=True, timeout=20)
    locked = Path.home() / ".ssh" / "id_ed25519"
    locked.parent.mkdir(parents=True)
    keygen(locked, passphrase="yes")
    server.authorize(locked)
    user = AnsweringUser("yes")
    assert works(opened(server, user, secrets, identity_file=""))
    assert len(user.asked) == 1


# Passwords and prompts


def test_a_password_is_asked_kept_and_used(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path) as server:
        user = AnsweringUser("wrong", server.password, keep=True)
        assert works(opened(server, user, secrets))
        about = f"tester@127.0.0.1:{server.port}"
        assert user.asked == [
            SecretQuestion(kind="password", about=about, host="box"),
            SecretQuestion(kind="password", about=about, host="box", is_retry=True),
        ]
        assert secrets.get("password", about) == server.password
        silent = AnsweringUser()
        assert works(opened(server, silent, secrets))
        assert silent.asked == []
        server.password = "changed"
        user = AnsweringUser("changed")
        assert works(opened(server, user, secrets))
        assert secrets.get("password", about) is None


def test_three_wrong_passwords_are_a_refusal(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path) as server, pytest.raises(Refused, match="refused the log-in") as caught:
        opened(server, AnsweringUser("a", "b", "c", "d", keep=True), secrets)
    assert server.seen == ["a", "b", "c"]
    assert all(secret not in str(caught.value) for secret in ("'a'", server.password))


def test_a_refused_question_ends_the_log_in(tmp_path: Path, secrets: FileSecrets) -> None:
    for methods in (("password",), ("keyboard-interactive",)):
        with opened_password_server(tmp_path, methods) as server:
            user = AnsweringUser()
            with pytest.raises(Refused, match="refused the log-in"):
                opened(server, user, secrets)
            assert len(user.asked) == 1


def test_prompts_are_asked_as_the_server_words_them(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path, ("keyboard-interactive",)) as server:
        server.prompts = [("Password: ", False, "pw"), ("Code\x1b[31m\n\u202e: ", True, "123456")]
        user = AnsweringUser("pw", "0", "pw", "123456", keep=True)
        assert works(opened(server, user, secrets))
    about = f"tester@127.0.0.1:{server.port}"
    first, code = user.asked[:2]
    assert first == SecretQuestion(kind="password", about=about, host="box")
    assert isinstance(code, SecretQuestion)
    assert (code.kind, code.echo, code.can_keep, code.is_retry) == ("prompt", True, False, False)
    assert code.about == "Code [31m  :"
    assert secrets.get("password", about) == "pw"


def test_a_kept_password_answers_its_prompt_but_no_code(tmp_path: Path, secrets: FileSecrets) -> None:
    with opened_password_server(tmp_path, ("keyboard-interactive",)) as server:
        server.prompts = [("tester's Password: ", False, "pw"), ("Verification code: ", False, "99")]
        secrets.put("password", f"tester@127.0.0.1:{server.port}", "pw")
        user = AnsweringUser("99")
        assert works(opened(server, user, secrets))
    assert [question.kind for question in user.asked if isinstance(question, SecretQuestion)] == ["prompt"]


def test_a_key_and_a_code_are_two_steps(tmp_path: Path, secrets: FileSecrets) -> None:
    key = keygen(tmp_path / "key")
    with opened_password_server(tmp_path, ("publickey", "keyboard-interactive")) as server:
        server.prompts = [("Code: ", False, "42")]
        user = AnsweringUser("42")
        assert works(opened(server, user, secrets, identity_file=str(key)))
    assert len(user.asked) == 1


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
