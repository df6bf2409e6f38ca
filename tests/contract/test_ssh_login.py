"""Logging in to real servers: keys, agents, passwords and prompts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.hosts import NobodyToAsk, SecretQuestion
from core.security.secrets import FileSecrets
from core.ssh.connection import connect
from core.ssh.problems import Refused
from tests.helpers.answering_user import AnsweringUser
from tests.helpers.ssh_logins import opened, server_for_nobody, works
from tests.helpers.ssh_server import (
    SshServer,
    keygen,
    opened_password_server,
)
from tests.helpers.waiting import wait_for


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    with server_for_nobody(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def secrets(tmp_path: Path) -> FileSecrets:
    return FileSecrets(tmp_path / "secrets.json")


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
