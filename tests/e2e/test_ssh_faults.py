"""What becomes of a link when the world misbehaves: hosts in namespaces with real servers and cables."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.contracts.errors import Cancelled, EnvironmentProblem
from core.contracts.hosts import NobodyToAsk
from core.security.secrets import FileSecrets
from core.ssh.connection import SshLink, connect
from core.ssh.problems import Refused, Unreachable
from tests.helpers.host_lab import LAUNCHER, HostLab, opened_host_lab, wait_out
from tests.helpers.waiting import wait_for


@pytest.fixture
def lab() -> Iterator[HostLab]:
    with opened_host_lab(2) as found:
        yield found


@pytest.fixture
def opened(lab: HostLab, tmp_path: Path) -> Iterator[Callable[..., SshLink]]:
    links: list[SshLink] = []

    def open_link(host: str = "h1", **fields: object) -> SshLink:
        links.append(
            connect(
                lab.record(host, **fields),
                asker=NobodyToAsk(),
                secrets=FileSecrets(tmp_path / "secrets.json"),
                known_hosts=tmp_path / "known_hosts",
                config_file=lab.ssh_config,
            )
        )
        return links[-1]

    yield open_link
    for link in links:
        link.close()


class Waiting:
    """A thread that waits on a link; what it raised or returned, and after how long."""

    def __init__(self, use: Callable[[], object]) -> None:
        self.result: object = None
        self.took_s = 0.0
        self._use = use
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._use()
        except (EnvironmentProblem, Cancelled) as error:
            self.result = error
        self.took_s = time.monotonic() - self._began

    def ended(self, limit_s: float) -> object:
        self._thread.join(limit_s)
        assert not self._thread.is_alive(), f"still waiting after {limit_s} s"
        return self.result


def test_hosts_are_hosts_of_their_own(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    one, two = opened("h1"), opened("h2")
    assert (one.run(["hostname"]).stdout, two.run(["hostname"]).stdout) == (b"h1\n", b"h2\n")
    assert one.home() == str(lab.home("h1"))
    boot_ids = {link.read("/proc/sys/kernel/random/boot_id", 0, 100) for link in (one, two)}
    assert len(boot_ids) == 2


def test_a_pulled_cable_is_noticed_within_seconds(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    link = opened()
    command = Waiting(lambda: link.run(["sleep", "100"], timeout_s=100))
    program = link.start(["sleep", "100"])
    reader = Waiting(lambda: program.read(10))
    wait_for(lambda: len(lab.jobs("h1")) >= 2, "both to run")
    lab.link("h1", up=False)
    assert isinstance(command.ended(20), Unreachable)
    assert reader.ended(5) == b""
    assert command.took_s < 14
    assert not link.is_alive()
    with pytest.raises(Unreachable, match="lost"):
        link.run(["true"])
    with pytest.raises(Unreachable, match="lost"):
        link.stat("/")


def test_a_short_cut_is_survived(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    link = opened()
    command = Waiting(lambda: link.run(["/bin/sh", "-c", "sleep 3; echo done"], timeout_s=60))
    wait_for(lambda: lab.jobs("h1"), "it to run")
    lab.link("h1", up=False)
    wait_out(2)
    lab.link("h1", up=True)
    result = command.ended(30)
    assert getattr(result, "stdout", result) == b"done\n"
    assert link.probe(20) < 20
    assert link.is_alive()


def test_a_frozen_host_is_found_by_asking_and_heals(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    link = opened()
    assert link.probe(10) < 10
    lab.freeze("h1")
    began = time.monotonic()
    with pytest.raises(Unreachable, match="does not answer"):
        link.probe(2)
    assert time.monotonic() - began < 4
    assert not link.is_alive()
    with pytest.raises(EnvironmentProblem):
        link.run(["true"], timeout_s=2)
    lab.thaw("h1")
    assert link.probe(20) < 20
    assert link.is_alive()
    assert link.run(["true"]).code == 0


def test_a_frozen_host_does_not_hold_up_connecting(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    lab.freeze("h1")
    connecting = Waiting(lambda: opened(connect_timeout_s=2.0))
    assert isinstance(connecting.ended(12), Unreachable)
    lab.thaw("h1")
    assert opened().run(["true"]).code == 0


def test_a_host_without_cable_does_not_hold_up_connecting(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    lab.link("h1", up=False)
    connecting = Waiting(lambda: opened(connect_timeout_s=1.5))
    result = connecting.ended(10)
    assert isinstance(result, Unreachable)
    assert "within 1.5 s" in result.message or "no route" in result.message


def test_a_crash_is_noticed_at_once(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    link = opened()
    command = Waiting(lambda: link.run(["sleep", "100"], timeout_s=100))
    wait_for(lambda: lab.jobs("h1"), "it to run")
    lab.crash("h1")
    crashed = time.monotonic()
    assert isinstance(command.ended(20), Unreachable)
    assert time.monotonic() - crashed < 5
    with pytest.raises(Unreachable, match="nothing listens"):
        opened()
    lab.start("h1")
    assert opened().run(["hostname"]).stdout == b"h1\n"


def test_sessions_outlive_a_stopped_server_but_not_a_restarted_service(
    lab: HostLab, opened: Callable[..., SshLink]
) -> None:
    link = opened()
    assert link.run(["true"]).code == 0
    lab.sshd("h1", on=False)
    assert link.run(["echo", "still"]).stdout == b"still\n"
    with pytest.raises(Unreachable, match="nothing listens"):
        opened()
    lab.end_sessions("h1")
    wait_for(lambda: not link.is_alive(), "the end to be noticed", 10)
    lab.sshd("h1", on=True)
    assert opened().run(["true"]).code == 0


def test_a_host_set_up_anew_is_refused(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    assert opened().run(["true"]).code == 0
    lab.new_host_key("h1")
    with pytest.raises(Refused, match="is not the one it had"):
        opened()


def test_a_host_out_of_reach_is_reached_over_another(lab: HostLab, opened: Callable[..., SshLink]) -> None:
    lab.partition(LAUNCHER, "h2")
    with pytest.raises(Unreachable):
        opened("h2", connect_timeout_s=1.0)
    link = opened("h2-by-h1")
    assert link.run(["hostname"]).stdout == b"h2\n"
    data = os.urandom(2_000_000)
    link.write(f"{link.home()}/data", data)
    assert link.read(f"{link.home()}/data", 0, 4_000_000) == data
    lab.crash("h1")
    wait_for(lambda: not link.is_alive(), "the loss of the jump host to be noticed", 10)
    with pytest.raises(Unreachable):
        link.run(["true"])


def test_a_copy_goes_on_after_a_crash_and_is_whole(
    lab: HostLab, opened: Callable[..., SshLink], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(6_000_000))
    lab.rate("h1", "40mbit")
    target = lab.home("h1") / "copy"
    is_half = threading.Event()
    link = opened()
    copying = Waiting(lambda: link.put(str(source), str(target), lambda n: is_half.set() if n > 3e6 else None))
    assert is_half.wait(30)
    lab.crash("h1")
    assert isinstance(copying.ended(20), EnvironmentProblem)
    assert not target.exists()
    lab.start("h1")
    lab.rate("h1", "")
    progress: list[int] = []
    opened().put(str(source), str(target), progress.append)
    assert progress[0] > 500_000, "it began anew"
    assert target.read_bytes() == source.read_bytes()


def test_a_full_disk_is_told_and_leaves_nothing(lab: HostLab, opened: Callable[..., SshLink], tmp_path: Path) -> None:
    folder = lab.home("h1") / "small"
    lab.small_disk("h1", folder, "1m")
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    link = opened()
    with pytest.raises(EnvironmentProblem, match="could not be read or written"):
        link.put(str(tmp_path / "big"), f"{folder}/big")
    with pytest.raises(EnvironmentProblem, match="could not be read or written"):
        link.write(f"{folder}/written", os.urandom(3_000_000))
    assert not any("written" in entry.name for entry in link.listdir(str(folder)))
    assert link.run(["true"]).code == 0


@pytest.mark.timeout(120)
def test_many_hosts_at_once(tmp_path: Path) -> None:
    with opened_host_lab(8) as lab:
        secrets = FileSecrets(tmp_path / "secrets.json")

        def use(host: str) -> bytes:
            link = connect(
                lab.record(host),
                asker=NobodyToAsk(),
                secrets=secrets,
                known_hosts=tmp_path / "known",
                config_file=lab.ssh_config,
            )
            try:
                return link.run(["hostname"]).stdout
            finally:
                link.close()

        waiting = [Waiting(lambda host=host: use(host)) for host in lab.names]
        assert [one.ended(60) for one in waiting] == [f"{host}\n".encode() for host in lab.names]
