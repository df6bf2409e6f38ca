"""What an ssh config means for us: asked of OpenSSH, and read without it."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path

import pytest

from core.contracts.errors import UserError
from core.contracts.hosts import HostRecord
from core.ssh.config import list_hosts, resolve


@pytest.fixture(params=["openssh", "paramiko"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Both ways to read a config; the user's own files are away."""
    monkeypatch.setenv("HOME", str(tmp_path))
    if request.param == "openssh" and shutil.which("ssh") is None:
        pytest.skip("not installed: ssh (package openssh-client)")
    if request.param == "paramiko":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return str(request.param)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config"
    path.write_text(text)
    return path


def test_all_that_a_host_needs_is_found(reader: str, tmp_path: Path) -> None:
    config = written(
        tmp_path,
        """
Host gpu
  HostName 10.1.2.3
  User "trainer"
  Port 2222
  IdentityFile ~/keys/id_%r
  IdentitiesOnly yes
  UserKnownHostsFile ~/known_here
  HostKeyAlias gpu-key
  IdentityAgent none
""",
    )
    target = resolve(HostRecord(name="box", alias="gpu"), config)
    assert (target.name, target.hostname, target.port, target.user) == ("box", "10.1.2.3", 2222, "trainer")
    assert [path.name for path in target.identity_files] == ["id_trainer"]
    assert target.is_explicit
    assert target.only_these
    assert target.known_hosts[0] == tmp_path / "known_here" or reader == "openssh"
    assert (target.key_alias, target.agent) == ("gpu-key", "")
    assert target.login == "trainer@10.1.2.3:2222"


def test_the_record_takes_precedence(reader: str, tmp_path: Path) -> None:
    config = written(tmp_path, "Host gpu\n  HostName 10.1.2.3\n  User a\n  Port 1\n  ProxyCommand false %h\n")
    record = HostRecord(
        name="box", alias="gpu", address="10.9.9.9", user="b", port=2, identity_file="/k/one", jump=("edge",)
    )
    target = resolve(record, config)
    assert (target.hostname, target.user, target.port) == ("10.9.9.9", "b", 2)
    assert target.identity_files == (Path("/k/one"),)
    assert target.only_these
    assert target.proxy_command == ""
    assert [hop.hostname for hop in target.jumps] == ["edge"]


def test_includes_and_patterns_are_followed(reader: str, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "10-a").write_text("Host inner\n  HostName 10.0.0.5\n")
    config = written(tmp_path, f"Include {tmp_path}/more/*\nHost in* !insane\n  User fromstar\nHost *\n  Port 77\n")
    target = resolve(HostRecord(name="box", alias="inner"), config)
    assert (target.hostname, target.user, target.port) == ("10.0.0.5", "fromstar", 77)
    assert [(h.alias, h.hostname, h.user, h.port) for h in list_hosts(config)] == [
        ("inner", "10.0.0.5", "fromstar", 77)
    ]


def test_an_unknown_match_criterion_does_not_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    marker = tmp_path / "executed"
    config = written(
        tmp_path,
        f'Host gpu\n  HostName 10.1.2.3\nMatch sessiontype shell\n  User wrong\nMatch exec "touch {marker}"\n  User wrong\n'
        "Host gpu\n  User right\n",
    )
    assert resolve(HostRecord(name="box", alias="gpu"), config).user == "right"
    assert [host.alias for host in list_hosts(config)] == ["gpu"]
    assert not marker.exists()


def test_jumps_are_resolved_through_the_config_too(reader: str, tmp_path: Path) -> None:
    config = written(
        tmp_path,
        """
Host gpu
  HostName 10.1.2.3
  ProxyJump me@middle:2200,inner
Host middle
  HostName 10.0.0.1
  ProxyJump outer
Host outer
  HostName 192.0.2.1
  Port 443
Host inner
  HostName 10.0.0.2
  ProxyJump never-this
""",
    )
    target = resolve(HostRecord(name="box", alias="gpu"), config)
    hops = [(hop.user, hop.hostname, hop.port) for hop in target.jumps]
    me = getpass.getuser()
    assert hops == [(me, "192.0.2.1", 443), ("me", "10.0.0.1", 2200), (me, "10.0.0.2", 22)]


def test_jumps_in_a_circle_are_told(reader: str, tmp_path: Path) -> None:
    config = written(tmp_path, "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(UserError, match="more than 8"):
        resolve(HostRecord(name="box", alias="a"), config)


def test_a_proxy_command_has_its_tokens(reader: str, tmp_path: Path) -> None:
    config = written(tmp_path, "Host gpu\n  HostName 10.1.2.3\n  User u\n  ProxyCommand nc -x 'p y' %h %p %r 100%%\n")
    assert resolve(HostRecord(name="box", alias="gpu"), config).proxy_command == "nc -x 'p y' 10.1.2.3 22 u 100%"


@pytest.mark.parametrize("user", ["$(touch x)", "a;b", "a b", "`x`", "a'b"])
def test_no_shell_sees_a_hostile_user(tmp_path: Path, user: str) -> None:
    config = written(tmp_path, "Host gpu\n  ProxyCommand nc %h %p %r\n")
    with pytest.raises(UserError, match="ProxyCommand"):
        resolve(HostRecord(name="box", alias="gpu", user=user), config)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a b", "a;b", "$(x)", "a'b", "a\nb"])
def test_a_host_that_cannot_be_one_is_refused(reader: str, tmp_path: Path, host: str) -> None:
    config = written(tmp_path, "")
    for record in (HostRecord(name="box", address=host), HostRecord(name="box", address="ok", jump=(host,))):
        with pytest.raises(UserError):
            resolve(record, config)


def test_a_record_without_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no address"):
        resolve(HostRecord(name="box"), written(tmp_path, ""))


def test_the_usual_keys_are_not_taken_as_named(reader: str, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    target = resolve(HostRecord(name="box", address="10.0.0.1"), written(tmp_path, ""))
    assert not target.is_explicit


def test_a_damaged_config_lists_what_it_can(tmp_path: Path) -> None:
    config = written(
        tmp_path, 'Host one "two"\n  HostName 10.0.0.1\ngarbage\nHost "open\n  User\n\x00\xff\nHost three *.four !x\n'
    )
    assert [host.alias for host in list_hosts(config)] == ["one", "two", "three"]


def test_no_config_lists_nothing(tmp_path: Path) -> None:
    assert list_hosts(tmp_path / "missing") == ()
    loop = written(tmp_path, f"Include {tmp_path}/config\nHost a\n")
    assert [host.alias for host in list_hosts(loop)] == ["a"]


def test_the_name_may_be_part_of_the_address(reader: str, tmp_path: Path) -> None:
    config = written(tmp_path, "Host n1 n2\n  HostName %h.cluster\n  ProxyCommand via %n to %h\n")
    target = resolve(HostRecord(name="box", alias="n2"), config)
    assert (target.hostname, target.proxy_command) == ("n2.cluster", "via n2 to n2.cluster")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="not installed: ssh (package openssh-client)")
def test_an_answer_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    (tmp_path / "inc").write_text("Host gpu\n  User first\n")
    config = written(tmp_path, f"Include {tmp_path}/inc\n")
    record = HostRecord(name="box", alias="gpu")
    assert resolve(record, config).user == "first"
    assert resolve(record, config).user == "first"
    (tmp_path / "inc").write_text("Host gpu\n  User another\n")
    assert resolve(record, config).user == "another"
    assert resolve(HostRecord(name="box", alias="gpu", user="mine"), config).user == "mine"
    config.write_text(f'Match exec "echo >> {counter}"\n  User dynamic\n')
    for times in (1, 2):
        assert resolve(record, config).user == "dynamic"
        assert len(counter.read_text().splitlines()) == times
