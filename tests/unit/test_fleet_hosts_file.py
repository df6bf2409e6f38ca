"""The hosts file: what is written is read again, whoever changes it at once, and a damaged one is left alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from core.contracts.errors import UserError
from core.contracts.hosts import HostRecord, RuntimeRecord
from core.settings.hosts_file import HostsFile


def test_a_host_is_kept_with_all_that_was_said_of_it(tmp_path: Path) -> None:
    file = HostsFile(tmp_path / "hosts.toml")
    runtime = RuntimeRecord(
        kind="interpreter", python="/opt/my env/bin/python", prelude=("module load 'x'", 'a="$(b)"'), checked=12.5
    )
    record = HostRecord(name="h1", address="10.0.0.1", jump=("user@gate:2222",), runtime=runtime)
    file.add(record)
    file.add(HostRecord(name="h2", alias="h2"))
    assert HostsFile(tmp_path / "hosts.toml").hosts() == (record, HostRecord(name="h2", alias="h2"))
    changed = HostRecord(name="h1", address="10.0.0.9")
    file.update(changed)
    assert file.host("h1") == changed
    file.remove("h1")
    assert [host.name for host in file.hosts()] == ["h2"]


def test_this_machine_is_always_there_and_its_name_is_taken(tmp_path: Path) -> None:
    file = HostsFile(tmp_path / "hosts.toml")
    assert file.host("local").name == "local"
    with pytest.raises(UserError, match="this machine's"):
        file.add(HostRecord(name="local"))


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 64, "a\nb", "a\n"])
def test_a_name_that_no_file_could_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name"):
        HostsFile(tmp_path / "hosts.toml").add(HostRecord(name=name))


def test_taken_and_unknown_names_are_refused(tmp_path: Path) -> None:
    file = HostsFile(tmp_path / "hosts.toml")
    file.add(HostRecord(name="h1"))
    with pytest.raises(UserError, match="already"):
        file.add(HostRecord(name="h1"))
    for act in (lambda: file.host("h3"), lambda: file.remove("h3"), lambda: file.update(HostRecord(name="h3"))):
        with pytest.raises(UserError, match="no host 'h3'"):
            act()


@pytest.mark.parametrize("text", ["[[hosts]", "[[hosts]]\nname = 3\n", '[[hosts]]\nname="a"\n[[hosts]]\nname="a"\n'])
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(text)
    with pytest.raises(UserError, match="damaged"):
        HostsFile(path).add(HostRecord(name="h1"))
    assert path.read_text() == text


def test_hosts_added_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    threads = [threading.Thread(target=HostsFile(path).add, args=(HostRecord(name=f"h{n}"),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {host.name for host in HostsFile(path).hosts()} == {f"h{n}" for n in range(12)}
