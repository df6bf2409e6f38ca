"""Looks at several hosts together: can each reach each other by TCP, do they share the work folder, do versions match.

On every host a small Python program without any package of ours listens on a port of its own and connects to all
others at the same time. It ends with its input, so nothing is left when the connection is cut. Nobody but programs with
the check's random word is answered.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from core.contracts.errors import Cancelled, EnvironmentProblem
from core.contracts.hosts import Finding, HostRecord
from core.contracts.links import Link, RemoteProcess
from core.fleet.host_facts import HostFacts
from core.fleet.host_findings import ERROR, OK, WARNING, finding
from core.fleet.self_test_answer import SelfTest

_CONNECT_LIMIT_S = 3.0
_ANSWER_LIMIT_S = 20.0
_OLDEST_PYTHON = (3, 6)
_NAMED_PEERS = 4
_SEEN_PACKAGES = ("numpy", "torchvision", "accelerate", "transformers")

# Runs on Python 3.6 and later. It speaks in lines behind a random word, which is also what a peer must say.
_PEER = r"""
import json, os, socket, sys, threading
token, name, limit_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
def say(what):
    sys.stdout.write("\n" + token + " " + json.dumps(what) + "\n")
    sys.stdout.flush()
def listener():
    try:
        found = socket.socket(socket.AF_INET6)
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind(("::", 0))
    except OSError:
        found = socket.socket()
        found.bind(("", 0))
    found.listen(128)
    return found
def answer(connection):
    try:
        connection.settimeout(limit_s)
        if connection.recv(256) == token.encode():
            connection.sendall(name.encode())
    except OSError:
        pass
    finally:
        connection.close()
def serve(server):
    while True:
        connection, _ = server.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()
def reach(peer, addresses, port, found):
    for address in addresses:
        try:
            with socket.create_connection((address, port), limit_s) as connection:
                connection.settimeout(limit_s)
                connection.sendall(token.encode())
                if connection.recv(256) == peer.encode():
                    found[peer] = [address, connection.getsockname()[0]]
                    return
        except OSError as error:
            found.setdefault("why " + peer, str(error))
server = listener()
threading.Thread(target=serve, args=(server,), daemon=True).start()
say({"port": server.getsockname()[1]})
found = {}
threads = [threading.Thread(target=reach, args=(*peer, found), daemon=True) for peer in json.loads(sys.stdin.readline() or "[]")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say(found)
while sys.stdin.read(1):
    pass
os._exit(0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A host that answered, and what is known of it."""

    record: HostRecord
    link: Link
    facts: HostFacts
    tested: SelfTest | None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the others may reach it, likeliest first."""
        own = [address for _, address in self.facts.addresses]
        v4_first = sorted(own, key=lambda address: ":" in address)
        named = [self.record.peer_address, *v4_first, self.record.address]
        return tuple(dict.fromkeys(address for address in named if address))


class _Peer:
    """The program on one host."""

    def __init__(self, member: Member, token: str) -> None:
        self.member = member
        self.port = 0
        self._token = f"{token} ".encode()
        self._rest = b""
        python = next(
            (python.path for python in member.facts.pythons if python.version[:2] >= _OLDEST_PYTHON), "python3"
        )
        command = [python, "-I", "-c", _PEER, token, member.record.name, str(_CONNECT_LIMIT_S)]
        self._process: RemoteProcess = member.link.start(command)

    def heard(self, is_cancelled: Callable[[], bool]) -> dict[str, object] | None:
        """Return the next thing that it says; None when it ends or is silent for too long."""
        deadline = time.monotonic() + _ANSWER_LIMIT_S
        while time.monotonic() < deadline:
            if is_cancelled():
                raise Cancelled
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                if line.startswith(self._token):
                    return json.loads(line[len(self._token) :])
            try:
                data = self._process.read(1 << 16, timeout_s=0.2)
            except TimeoutError:
                continue
            if not data:
                return None
            self._rest = (self._rest + data)[-(1 << 20) :]
        return None

    def tell(self, peers: Sequence[_Peer]) -> None:
        """Say whom to connect to."""
        targets = [[peer.member.record.name, peer.member.addresses, peer.port] for peer in peers if peer is not self]
        self._process.write(json.dumps(targets).encode() + b"\n")

    def close(self) -> None:
        self._process.close()


def reach_findings(members: Sequence[Member], is_cancelled: Callable[[], bool]) -> dict[str, list[Finding]]:
    """Let every host connect to every other one; return the findings by host.

    Raises:
        Cancelled: The user cancelled.
    """
    token = secrets.token_hex(16)
    started: list[_Peer] = []
    with ThreadPoolExecutor(max_workers=max(len(members), 1), thread_name_prefix="between-hosts") as threads:
        try:
            openings = list(threads.map(lambda member: _open(member, token, started, is_cancelled), members))
            ready = [peer for peer, _ in openings if peer is not None]
            answers = dict(threads.map(lambda peer: _results(peer, ready, is_cancelled), ready))
        finally:
            for peer in started:
                peer.close()
    found = {member.record.name: list(problems) for member, (_, problems) in zip(members, openings, strict=True)}
    for name, answer in answers.items():
        found[name] += _judge(name, answer, [peer.member for peer in ready])
    return found


def _open(
    member: Member, token: str, started: list[_Peer], is_cancelled: Callable[[], bool]
) -> tuple[_Peer | None, tuple[Finding, ...]]:
    """Start the program on a host, and wait until it listens."""
    try:
        peer = _Peer(member, token)
        started.append(peer)
        said = peer.heard(is_cancelled)
    except EnvironmentProblem as error:
        return None, (finding(ERROR, "between", error.message, error.hint),)
    port = None if said is None else said.get("port")
    if isinstance(port, int):
        peer.port = port
        return peer, ()
    what = "Whether the other hosts can reach it could not be tried: it has no Python 3 that starts."
    return None, (finding(WARNING, "between", what, "Install a Python environment first."),)


def _results(peer: _Peer, peers: Sequence[_Peer], is_cancelled: Callable[[], bool]) -> tuple[str, Mapping[str, object]]:
    try:
        peer.tell(peers)
        return peer.member.record.name, peer.heard(is_cancelled) or {}
    except EnvironmentProblem:
        return peer.member.record.name, {}


def _judge(name: str, answer: Mapping[str, object], members: Sequence[Member]) -> Iterator[Finding]:
    reached: list[str] = []
    for member in members:
        other = member.record.name
        if other == name:
            continue
        way = answer.get(other)
        if isinstance(way, list):
            reached.append(f"{other} at {way[0]}")  # pyright: ignore[reportUnknownArgumentType]
            continue
        tried = ", ".join(member.addresses) or "no address known"
        what = f"It cannot connect to {other} ({tried}): {answer.get(f'why {other}', 'no answer')}."
        remedy = (
            f"Allow TCP between the hosts in their firewalls (all ports above 1024), or give {other} the address by "
            "which the others reach it (peer address)."
        )
        yield finding(ERROR, "between", what, remedy)
    if len(reached) > _NAMED_PEERS:
        yield finding(OK, "between", f"It reaches {len(reached)} other hosts.")
    elif reached:
        yield finding(OK, "between", f"It reaches {', '.join(reached)}.")


def shared_findings(members: Sequence[Member]) -> dict[str, list[Finding]]:
    """Find out by a file whether the hosts see the same work folder; return the findings by host."""
    head = members[0]
    name = f".pilothouse-shared-{secrets.token_hex(8)}"
    found: dict[str, list[Finding]] = {}
    if not head.facts.work_dir_exists:
        return found
    try:
        head.link.write(f"{head.facts.work_dir}/{name}", b"")
        try:
            for member in members[1:]:
                is_same = member.link.stat(f"{member.facts.work_dir}/{name}") is not None
                relation = "the same as" if is_same else "another than"
                what = f"Its work folder is {relation} that of {head.record.name}."
                found[member.record.name] = [finding(OK, "shared", what)]
        finally:
            head.link.remove(f"{head.facts.work_dir}/{name}")
    except (EnvironmentProblem, OSError) as error:
        what = f"Whether the hosts share a file system could not be tried: {error}."
        found.setdefault(head.record.name, []).append(finding(WARNING, "shared", what))
    return found


def version_findings(members: Sequence[Member]) -> dict[str, list[Finding]]:
    """Compare what is installed with the first host that has an environment; return the findings by host."""
    with_runtime = [member for member in members if member.tested is not None]
    found: dict[str, list[Finding]] = {}
    for member in with_runtime[1:]:
        head = with_runtime[0]
        assert member.tested is not None
        assert head.tested is not None
        found[member.record.name] = list(_differences(member.tested, head.tested, head.record.name))
    return found


def _differences(mine: SelfTest, heads: SelfTest, head: str) -> Iterator[Finding]:
    remedy = "Install the same environment on all hosts of a run."
    torch, heads_torch = (tested.torch.version if tested.torch else "none" for tested in (mine, heads))
    is_same = torch == heads_torch
    if not is_same:
        yield finding(ERROR, "versions", f"It has torch {torch}, {head} has torch {heads_torch}.", remedy)
    if mine.python.split(".")[:2] != heads.python.split(".")[:2]:
        is_same = False
        yield finding(WARNING, "versions", f"It has Python {mine.python}, {head} has Python {heads.python}.", remedy)
    for name in _SEEN_PACKAGES:
        version, heads_version = (tested.packages.get(name, "none") for tested in (mine, heads))
        if version != heads_version:
            is_same = False
            yield finding(WARNING, "versions", f"It has {name} {version}, {head} has {name} {heads_version}.", remedy)
    if is_same:
        yield finding(OK, "versions", f"Python and packages are those of {head}.")
