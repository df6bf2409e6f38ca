"""The supervisors' star over real sockets, with a clock that the test moves on: joining, silence, strangers, stops."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.contracts.errors import EnvironmentProblem
from core.contracts.placement import Placement
from core.contracts.states import RunState
from core.jobs.ending import RESUME_HINT
from core.jobs.membership import Membership, Peers
from core.jobs.outcome import verdict_of
from core.jobs.peer_head import Head
from core.jobs.peer_member import Member
from core.jobs.peer_wire import Challenge, Hello, Part, Phase, Report, proof_of
from core.jobs.peers import peers_of
from tests.helpers.node_lab import placement_for

LIMIT_S = 25.0
FAILED = Part(node="b", state=RunState.FAILED, message="Rank 3 hit a bad row.", hint="Mend it.", failed_at=5.0)


class Star:
    """Peers of one run in this process; time passes as the test says."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.logs: list[str] = []
        self.peers: dict[str, Peers] = {}
        self.passed_s = 0.0

    def membership(self, node: str, **changed: object) -> Membership:
        fields: dict[str, object] = {"run_id": "run", "attempt": 1, "node": node, "placement": self.placement}
        return Membership(**{**fields, "peer_limit_s": LIMIT_S, "ending_s": 5.0, **changed})  # type: ignore[arg-type]

    def join(self, *nodes: str, **changed: object) -> None:
        for node in nodes:
            self.peers[node] = peers_of(
                self.membership(node, **changed), lambda sentence, _: self.logs.append(sentence)
            )
            self.peers[node].enter(Phase.JOINED, 1)

    @property
    def head(self) -> Peers:
        return self.peers["a"]

    def tick(self, *nodes: str) -> None:
        for node in nodes or tuple(self.peers):
            self.peers[node].tick(time.monotonic() + self.passed_s)

    def until(self, condition: object, *nodes: str) -> None:
        deadline = time.monotonic() + 10
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, "waited in vain"
            self.tick(*nodes)
            time.sleep(0.005)

    def pass_time(self, seconds: float, *nodes: str) -> None:
        """Let time pass for the nodes named; the others are silent."""
        for _ in range(int(seconds * 2)):
            self.passed_s += 0.5
            self.tick(*nodes)
            time.sleep(0.002)

    def ready(self, *nodes: str) -> None:
        for node in nodes:
            self.peers[node].enter(Phase.READY, 1)

    def running(self, *nodes: str) -> None:
        self.join(*nodes)
        self.ready(*nodes)
        self.until(lambda: all(self.peers[node].may_start() for node in nodes))
        for node in nodes:
            self.peers[node].enter(Phase.RUNNING, 1)

    def close(self) -> None:
        for peers in self.peers.values():
            peers.close()


@pytest.fixture
def star(tmp_path: Path) -> Iterator[Star]:
    found = Star(placement_for(tmp_path, "run", "abc"))
    yield found
    found.close()


def test_nobody_starts_before_all_are_ready(star: Star) -> None:
    star.join("a", "b", "c")
    star.ready("a", "b")
    star.pass_time(5)
    assert not any(peers.may_start() for peers in star.peers.values())
    star.ready("c")
    star.until(lambda: all(peers.may_start() for peers in star.peers.values()))


def test_devices_are_taken_host_by_host_in_the_order_of_addresses(star: Star) -> None:
    nodes = tuple(
        msgspec.structs.replace(placed, host=host)
        for placed, host in zip(star.placement.nodes, ("z", "x", "y"), strict=True)
    )
    star.placement = msgspec.structs.replace(star.placement, nodes=nodes)
    star.join("a", "b", "c")
    star.until(star.peers["b"].may_take_devices)
    assert not star.peers["c"].may_take_devices()
    assert not star.head.may_take_devices()
    star.ready("b")
    star.until(star.peers["c"].may_take_devices)
    assert not star.head.may_take_devices()
    star.ready("c")
    star.until(star.head.may_take_devices)


def test_the_order_of_devices_is_that_of_the_machines_own_names_whatever_their_addresses(star: Star) -> None:
    for node, machine in (("a", "z 1"), ("b", "x 3")):
        star.join(node, machine=machine)
    star.pass_time(2)
    assert not any(peers.may_take_devices() for peers in star.peers.values()), "the third may come first"
    star.join("c", machine="x 2")
    star.until(star.peers["c"].may_take_devices)
    assert not star.peers["b"].may_take_devices()
    star.ready("c")
    star.until(star.peers["b"].may_take_devices)
    star.ready("b")
    star.until(star.head.may_take_devices)


def test_a_cut_of_twelve_seconds_is_survived(star: Star) -> None:
    star.running("a", "b", "c")
    star.pass_time(12, "a", "c")
    star.pass_time(30)
    assert [peers.stop_reason for peers in star.peers.values()] == ["", "", ""]


def test_a_silent_node_is_lost_and_the_others_are_told_which(star: Star) -> None:
    star.running("a", "b", "c")
    star.pass_time(LIMIT_S - 2, "a", "c")
    assert not star.head.stop_reason
    star.pass_time(4, "a", "c")
    assert "host host-b was not heard from" in star.head.stop_reason
    assert not star.head.is_stop_wanted
    star.until(lambda: "host host-b" in star.peers["c"].stop_reason, "a", "c")
    assert [(part.node, part.state) for part in star.head.parts] == [("b", RunState.LOST)]


def test_a_member_that_left_without_a_word_is_missed_sooner(star: Star) -> None:
    star.running("a", "b", "c")
    star.peers.pop("b").close()
    star.pass_time(9)
    assert "supervisor of the run on host host-b ended without a word" in star.head.stop_reason


def test_a_broken_connection_is_made_anew_without_a_loss(star: Star) -> None:
    star.running("a", "b", "c")
    head = star.head
    assert isinstance(head, Head)
    for node in head._others.values():
        assert node.wire is not None
        node.wire.close()
    star.pass_time(3)
    star.until(lambda: all(node.wire is not None for node in head._others.values()))
    star.pass_time(LIMIT_S * 2)
    assert [peers.stop_reason for peers in star.peers.values()] == ["", "", ""]


def test_the_end_of_the_head_stops_a_member_soon(star: Star) -> None:
    star.running("a", "b", "c")
    star.peers.pop("a").close()
    star.pass_time(8)
    assert "host host-a, the head, has ended" in star.peers["b"].stop_reason
    star.peers["b"].end(FAILED)
    assert star.peers["b"].is_done(time.monotonic()), "there is nobody to wait for"


def test_a_head_that_is_silent_stops_a_member(star: Star) -> None:
    star.running("a", "b", "c")
    star.pass_time(LIMIT_S + 2, "b")
    assert "host host-a, the head of the run, was not heard from" in star.peers["b"].stop_reason


def test_a_supervisor_that_was_frozen_itself_blames_nobody(star: Star) -> None:
    star.running("a", "b", "c")
    star.passed_s += 600
    star.pass_time(3)
    assert [peers.stop_reason for peers in star.peers.values()] == ["", "", ""]


def test_a_node_that_never_comes_is_named_with_what_to_check(star: Star) -> None:
    star.join("a", "b")
    star.pass_time(121)
    assert "host host-c did not join within 120 s" in star.head.stop_reason
    (part,) = star.head.parts
    assert str(star.placement.rendezvous.watch_port if star.placement.rendezvous else "") in part.hint


def test_a_member_that_reaches_no_head_stops(star: Star) -> None:
    star.join("b")
    star.pass_time(121)
    assert "host host-a, the head of the run, could not be reached" in star.peers["b"].stop_reason


def test_a_failure_stops_all_and_the_failed_part_may_leave(star: Star) -> None:
    star.running("a", "b", "c")
    failed, other = star.peers["b"], star.peers["c"]
    failed.end(FAILED)
    star.until(lambda: bool(other.stop_reason))
    assert other.stop_reason == star.head.stop_reason == "The host host-b ended: Rank 3 hit a bad row."
    star.until(lambda: failed.is_done(time.monotonic()))
    star.head.end(Part(node="a", state=RunState.STOPPED))
    assert not star.head.is_done(time.monotonic()), "c has not ended"
    other.end(Part(node="c", state=RunState.STOPPED))
    star.until(lambda: star.head.is_done(time.monotonic()))
    assert {part.node: part.state for part in star.head.parts} == {"b": RunState.FAILED, "c": RunState.STOPPED}


def test_a_part_that_does_not_end_is_waited_for_only_so_long(star: Star) -> None:
    star.running("a", "b", "c")
    star.head.end(Part(node="a", state=RunState.FAILED, message="Broken."))
    star.until(lambda: "Broken." in star.peers["b"].stop_reason)
    assert not star.head.is_done(time.monotonic() + 40)
    assert not star.head.is_done(time.monotonic() + 5 + LIMIT_S + 21)
    assert star.head.is_done(time.monotonic() + 5 + LIMIT_S + 21)
    star.tick("a")
    assert {part.state for part in star.head.parts} == {RunState.LOST}


def test_a_wish_to_stop_reaches_all_and_is_no_failure(star: Star) -> None:
    star.running("a", "b", "c")
    star.peers["b"].wish_stop("Stopped on request.")
    star.until(lambda: bool(star.peers["c"].stop_reason))
    assert star.head.is_stop_wanted
    assert star.head.stop_reason == "The host host-b asks to stop: Stopped on request."


def test_an_elastic_run_goes_on_with_fewer_and_takes_a_node_back(tmp_path: Path) -> None:
    star = Star(placement_for(tmp_path, "run", "abc", min_nodes=2))
    try:
        star.running("a", "b", "c")
        star.peers.pop("c").close()
        star.pass_time(9)
        assert not star.head.stop_reason
        assert any("goes on with 2 of 3 nodes" in sentence for sentence in star.logs)
        star.join("c")
        star.ready("c")
        star.until(star.peers["c"].may_start)
        assert star.head.parts == []
        star.pass_time(LIMIT_S + 2, "a", "c")
        assert not star.head.stop_reason
        star.pass_time(LIMIT_S + 2, "a")
        assert star.head.stop_reason, "one node is too few"
    finally:
        star.close()


def test_a_pause_is_over_once_all_have_ended_for_it(star: Star) -> None:
    star.running("a", "b", "c")
    star.head.wants_pause = True
    star.until(lambda: star.peers["b"].wants_pause and star.peers["c"].wants_pause)
    for node in "ab":
        star.peers[node].enter(Phase.PAUSED, 1)
    star.pass_time(3)
    assert not star.head.are_paused()
    star.peers["c"].enter(Phase.PAUSED, 1)
    star.until(star.head.are_paused)
    star.head.wants_pause = False
    star.until(lambda: not star.peers["b"].wants_pause)
    for node in "abc":
        star.peers[node].enter(Phase.READY, 2)
    star.until(lambda: all(peers.may_start() for peers in star.peers.values()))


def test_a_run_goes_on_after_a_pause_only_with_all_that_were_in_it(star: Star) -> None:
    star.running("a", "b", "c")
    star.peers["b"].end(Part(node="b", state=RunState.SUCCEEDED))
    star.head.wants_pause = True
    for node in "ac":
        star.peers[node].enter(Phase.PAUSED, 1)
    star.until(star.head.are_paused)
    star.head.wants_pause = False
    for node in "ac":
        star.peers[node].enter(Phase.READY, 2)
    star.until(lambda: bool(star.head.stop_reason))
    assert star.head.stop_reason == "The run cannot go on without host host-b, where its part has ended."
    assert star.head.is_stop_wanted
    assert not star.head.may_start()
    star.until(lambda: bool(star.peers["c"].stop_reason), "a", "c")


def test_a_head_that_ended_well_waits_only_so_long_for_others_that_are_told_to_stop(star: Star) -> None:
    star.running("a", "b", "c")
    star.head.end(Part(node="a", state=RunState.SUCCEEDED))
    star.peers["b"].end(FAILED)
    star.until(lambda: bool(star.peers["c"].stop_reason))
    assert not star.head.is_done(time.monotonic() + star.passed_s)
    star.pass_time(LIMIT_S + 5 + 20 + 1)
    assert not star.head.is_done(time.monotonic() + star.passed_s)  # those that did not end become lost
    assert star.head.is_done(time.monotonic() + star.passed_s)
    star.tick("a")
    assert {one.node: one.state for one in star.head.parts} == {"b": RunState.FAILED, "c": RunState.LOST}


def _say(star: Star, *lines: bytes) -> socket.socket:
    assert star.placement.rendezvous is not None
    stranger = socket.create_connection(("127.0.0.1", star.placement.rendezvous.watch_port))
    for line in lines:
        stranger.sendall(line)
    return stranger


def test_strangers_do_no_harm(star: Star) -> None:
    star.join("a", "b", "c")
    report = msgspec.json.encode(Report(sent=0.0, phase=Phase.ENDED, round=1, part=FAILED)) + b"\n"
    hello = Hello(run_id="run", attempt=1, node="b", nonce="n", proof=proof_of("wrong", "n", "b"))
    strangers = [
        _say(star),
        _say(star, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        _say(star, b"\x00\xff\xfe garbage without an end"),
        _say(star, report),
        _say(star, msgspec.json.encode(hello) + b"\n" + report),
        _say(star, b"[" * 60_000, b"[" * 60_000),
        *(_say(star) for _ in range(40)),
    ]
    star.ready("a", "b", "c")
    star.until(lambda: all(peers.may_start() for peers in star.peers.values()))
    star.pass_time(12)
    head = star.head
    assert isinstance(head, Head)
    assert head._strangers == [], "all were dropped"
    assert (head.parts, head.stop_reason) == ([], "")
    for stranger in strangers:
        stranger.close()


def test_a_proof_is_good_for_one_challenge_only(star: Star) -> None:
    star.join("a")
    seen: list[Challenge] = []
    for _ in range(2):
        stranger = _say(star)
        star.pass_time(1)
        seen.append(msgspec.json.decode(stranger.recv(4096), type=Challenge))
        stranger.close()
    assert seen[0].nonce != seen[1].nonce


def test_a_member_obeys_no_head_that_does_not_know_the_token(star: Star) -> None:
    assert star.placement.rendezvous is not None
    with socket.create_server(("127.0.0.1", star.placement.rendezvous.watch_port)) as impostor:
        star.join("b")
        impostor.settimeout(0.01)
        accepted: list[socket.socket] = []

        def is_connected() -> bool:
            try:
                accepted.append(impostor.accept()[0])
            except TimeoutError:
                return False
            return True

        star.until(is_connected)
        accepted[0].sendall(b'{"type":"challenge","nonce":"x"}\n{"type":"welcome","proof":"y"}\n')
        accepted[0].sendall(b'{"type":"orders","stop":"Stop it."}\n')
        star.pass_time(5)
        assert not star.peers["b"].stop_reason
        for connection in accepted:
            connection.close()


def test_a_port_in_use_is_said(star: Star) -> None:
    assert star.placement.rendezvous is not None
    with (
        socket.create_server(("127.0.0.1", star.placement.rendezvous.watch_port)),
        pytest.raises(EnvironmentProblem, match="is in use"),
    ):
        star.join("a")


def test_a_run_on_one_node_waits_for_nobody(tmp_path: Path) -> None:
    star = Star(placement_for(tmp_path, "run", "a"))
    star.join("a")
    alone = star.head
    assert type(alone) is Peers
    assert alone.may_start()
    assert alone.may_take_devices()
    assert alone.is_done(0.0)
    assert not isinstance(alone, Member)


def part(node: str, state: RunState, message: str = "", *, failed_at: float = 0.0, is_secondary: bool = False) -> Part:
    return Part(node=node, state=state, message=message, failed_at=failed_at, is_secondary=is_secondary)


@pytest.mark.parametrize(
    ("parts", "stop", "state", "message"),
    [
        (
            [
                part("a", RunState.FAILED, "Connection closed by peer.", failed_at=1.0, is_secondary=True),
                part("b", RunState.FAILED, "CUDA out of memory.", failed_at=2.0),
                part("c", RunState.STOPPED, "Stopped."),
            ],
            "",
            RunState.FAILED,
            "On host host-b: CUDA out of memory.",
        ),
        (
            [
                part("a", RunState.FAILED, "late", failed_at=9.0),
                part("b", RunState.STOPPED),
                part("c", RunState.FAILED, "early", failed_at=3.0),
            ],
            "",
            RunState.FAILED,
            "On host host-c: early",
        ),
        (
            [
                part("a", RunState.FAILED, "Connection closed by peer.", failed_at=1.0, is_secondary=True),
                part("b", RunState.LOST, "The host host-b was not heard from for 25 s: it is lost.", failed_at=2.0),
            ],
            "",
            RunState.FAILED,
            "The host host-b was not heard from for 25 s: it is lost.",
        ),
        (
            [part("a", RunState.STOPPED), part("b", RunState.FAILED, "echo", is_secondary=True)],
            "Stopped on request.",
            RunState.STOPPED,
            "Stopped on request.",
        ),
        ([part("a", RunState.SUCCEEDED), part("b", RunState.SUCCEEDED)], "", RunState.SUCCEEDED, ""),
        (
            [part("a", RunState.SUCCEEDED), part("b", RunState.FAILED, "bad row")],
            "",
            RunState.FAILED,
            "On host host-b: bad row",
        ),
    ],
)
def test_the_first_failure_that_is_no_echo_is_the_runs(
    tmp_path: Path, parts: list[Part], stop: str, state: RunState, message: str
) -> None:
    placement = placement_for(tmp_path, "run", "abc")
    verdict = verdict_of(parts[0], parts[1:], placement, stop)
    assert (verdict.state, verdict.message) == (state, message)
    assert state is RunState.SUCCEEDED or verdict.hint == RESUME_HINT
