"""The head's side of the supervisors' star: listens on the watch port, decides when to begin and when to stop, tells all."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from dataclasses import dataclass, field

from core.contracts.errors import EnvironmentProblem
from core.contracts.placement import NodePlacement
from core.contracts.states import RunState
from core.jobs.membership import ENDING_LIMIT_S, FROZEN_S, HEAD_NAME, SAY_S, Log, Membership, Peers, name_of
from core.jobs.peer_wire import (
    Challenge,
    Hello,
    Orders,
    Part,
    Phase,
    Report,
    Welcome,
    Wire,
    is_proof,
    new_nonce,
    proof_of,
)

_GREET_LIMIT_S = 10.0
_MOST_STRANGERS = 32
_GONE_LIMIT_S = 8.0
_FINISH_LIMIT_S = 330.0
"""torchrun's agents wait up to 300 s for each other at the end."""


@dataclass(slots=True)
class _Node:
    """What the head knows of another node; times are monotonic seconds."""

    placed: NodePlacement
    heard: float
    wire: Wire | None = None
    was_heard: bool = False
    left: float | None = None
    report: Report | None = None
    clock_offset_s: float | None = None
    part: Part | None = None
    said: Orders = field(default_factory=Orders)
    said_at: float = 0.0

    def stands(self, phases: tuple[Phase, ...], round_number: int) -> bool:
        """Tell whether it is in one of the phases of a round, or a later round."""
        report = self.report
        if report is None:
            return False
        return report.round > round_number or (report.round == round_number and report.phase in phases)


class Head(Peers):
    """The head's side: listens, decides, tells.

    Raises:
        EnvironmentProblem: The watch port cannot be listened on.
    """

    def __init__(self, membership: Membership, log: Log) -> None:
        super().__init__()
        self._my = membership
        self._log = log
        now = time.monotonic()
        head = membership.placement.head
        self._others = {placed.node: _Node(placed, now) for placed in membership.placement.nodes[1:]}
        self._order: list[str] = []
        self._strangers: list[tuple[Wire, str, float]] = []
        self._phase = Phase.JOINED
        self._round = 0
        self._go = 0
        self._began = now
        self._order_to_stop = ""
        self._ended_at: float | None = None
        self._ended_well = False
        self._ticked = now
        self._listener = _listen(head.address, membership.rendezvous.watch_port)

    def tick(self, now: float) -> None:
        """See ``Peers.tick``."""
        if now - self._ticked > FROZEN_S:
            for node in self._others.values():
                node.heard += now - self._ticked
        self._ticked = now
        self._accept(now)
        self._greet(now)
        for node in self._others.values():
            self._hear(node, now)
            self._look_after(node, now)
        self._decide_start(now)
        for node in self._others.values():
            self._tell(node, now)
        self.parts = [node.part for node in self._others.values() if node.part is not None]

    def _accept(self, now: float) -> None:
        with contextlib.suppress(OSError):
            for _ in range(_MOST_STRANGERS):
                connection, _ = self._listener.accept()
                if len(self._strangers) >= _MOST_STRANGERS:
                    self._strangers.pop(0)[0].close()
                wire, nonce = Wire(connection), new_nonce()
                wire.send(Challenge(nonce=nonce))
                self._strangers.append((wire, nonce, now + _GREET_LIMIT_S))

    def _greet(self, now: float) -> None:
        """Let in who proves to be a member; drop who says something else, or nothing."""
        waiting: list[tuple[Wire, str, float]] = []
        for wire, nonce, deadline in self._strangers:
            messages = wire.receive()
            hello = messages[0] if messages else None
            if hello is None and wire.is_open and now < deadline:
                waiting.append((wire, nonce, deadline))
            elif isinstance(hello, Hello) and self._is_member(hello, nonce):
                self._welcome(hello, wire, now)
            else:
                wire.close()
        self._strangers = waiting

    def _is_member(self, hello: Hello, nonce: str) -> bool:
        is_ours = hello.run_id == self._my.run_id and hello.attempt == self._my.attempt and hello.node in self._others
        return is_ours and is_proof(hello.proof, self._my.rendezvous.token, nonce, hello.node)

    def _welcome(self, hello: Hello, wire: Wire, now: float) -> None:
        node = self._others[hello.node]
        if node.wire is not None:
            node.wire.close()
        if node.part is not None and node.part.state is RunState.LOST and self._my.placement.is_elastic:
            node.part = node.report = node.clock_offset_s = None
            self._log(f"The {name_of(node.placed)} is back.", "info")
        node.wire, node.heard, node.was_heard, node.left, node.said_at = wire, now, True, None, 0.0
        wire.send(Welcome(proof=proof_of(self._my.rendezvous.token, hello.nonce, HEAD_NAME)))

    def _hear(self, node: _Node, now: float) -> None:
        if node.wire is None:
            return
        for message in node.wire.receive():
            if isinstance(message, Report):
                node.heard, node.report = now, message
                offset = time.time() - message.sent
                node.clock_offset_s = offset if node.clock_offset_s is None else min(node.clock_offset_s, offset)
                if message.wish and not self.stop_reason:
                    self.stop_reason = f"The {name_of(node.placed)} asks to stop: {message.wish}"
                    self.is_stop_wanted = True
                if message.part is not None and node.part is None:
                    self._take_part(node, message.part)
        if not node.wire.is_open:
            node.left = now if node.wire.was_left else None
            node.wire = None

    def _take_part(self, node: _Node, part: Part) -> None:
        """Keep how a part ended, its time by this node's clock."""
        shift = node.clock_offset_s or 0.0
        node.part = Part(
            node=node.placed.node,
            state=part.state,
            message=part.message,
            hint=part.hint,
            kind=part.kind,
            is_secondary=part.is_secondary,
            failed_at=part.failed_at + shift,
        )
        if part.state is not RunState.SUCCEEDED:
            self._on_fall(node, part.message)

    def _look_after(self, node: _Node, now: float) -> None:
        """Count a node as lost that does not come, left without a word, or is silent."""
        if node.part is not None:
            return
        silent_s = now - node.heard
        name = name_of(node.placed)
        if not node.was_heard:
            limit, message = self._my.join_limit_s, f"The {name} did not join within {self._my.join_limit_s:g} s."
        elif node.left is not None and now - node.left > min(_GONE_LIMIT_S, self._my.peer_limit_s):
            limit, message = 0.0, f"The supervisor of the run on {name} ended without a word."
        else:
            limit, message = self._my.peer_limit_s, f"The {name} was not heard from for {silent_s:.0f} s: it is lost."
        if silent_s > limit:
            self._lose(node, message, silent_s)

    def _lose(self, node: _Node, message: str, silent_s: float) -> None:
        head = self._my.placement.head
        hint = f"Check that it runs and reaches {head.address}:{self._my.rendezvous.watch_port}, then resume the run."
        node.part = Part(
            node=node.placed.node,
            state=RunState.LOST,
            message=message,
            hint=hint,
            kind="lost",
            failed_at=time.time() - silent_s,
        )
        self._on_fall(node, message)

    def _on_fall(self, node: _Node, message: str) -> None:
        """A part fell: stop all, or go on while enough are left."""
        fallen = sum(
            1
            for other in self._others.values()
            if other.part is not None and other.part.state is not RunState.SUCCEEDED
        )
        left = len(self._my.placement.nodes) - fallen
        sentence = message if name_of(node.placed) in message else f"The {name_of(node.placed)} ended: {message}"
        if left >= self._my.placement.min_nodes and self._my.placement.is_elastic:
            self._log(f"{sentence} The run goes on with {left} of {len(self._my.placement.nodes)} nodes.", "warning")
        elif not self.stop_reason:
            self.stop_reason = sentence

    def _decide_start(self, now: float) -> None:
        """Let a round begin once every node that has a part in it is ready."""
        if self._go >= self._round or self._phase is not Phase.READY:
            return
        missing = [node for node in self._others.values() if not node.stands((Phase.READY, Phase.RUNNING), self._round)]
        is_late = self._my.placement.is_elastic and now - self._began > self._my.join_limit_s
        there = len(self._my.placement.nodes) - len(missing)
        expected = [node for node in missing if node.part is None and (node.was_heard or not is_late)]
        if not expected and there >= min(self._my.placement.min_nodes, len(self._my.placement.nodes)):
            self._go = self._round
        elif missing and all(node.part is not None for node in missing) and not self.stop_reason:
            # Its supervisor has left, and another start of the run is what brings it back.
            names = ", ".join(name_of(node.placed) for node in missing)
            self.stop_reason = f"The run cannot go on without {names}, where its part has ended."
            self.is_stop_wanted = True

    def _holds_devices(self, node: str) -> bool:
        phases = (Phase.READY, Phase.RUNNING)
        if node == self._my.node:
            return self._phase in phases
        other = self._others[node]
        return other.part is not None or other.stands(phases, self._round)

    def _machine_of(self, placed: NodePlacement) -> str | None:
        """Return what a node's machine calls itself; None while it has not said it and may still."""
        if placed.node == self._my.node:
            return self._my.machine
        other = self._others[placed.node]
        if other.report is not None:
            return other.report.machine
        return None if other.part is None else ""

    def _find_order(self) -> None:
        """Put the nodes into the order in which they take devices, once all have joined.

        It is that of the machines' own names, which are the same for every run and whoever launched it: a machine of two
        networks has another address in each, and is called differently in each hosts file.
        """
        placed = {one.node: one for one in self._my.placement.nodes}
        machines = {node: self._machine_of(one) for node, one in placed.items()}
        known = [
            (name, placed[node].address, placed[node].host, node) for node, name in machines.items() if name is not None
        ]
        if len(known) == len(placed):
            self._order = [node for *_, node in sorted(known)]

    def _may_take(self, node: str) -> bool:
        """Devices are taken host by host, in one order for all runs: two runs can never wait for each other."""
        if not self._order:
            self._find_order()
        return bool(self._order) and all(map(self._holds_devices, self._order[: self._order.index(node)]))

    def _tell(self, node: _Node, now: float) -> None:
        if node.wire is None:
            return
        orders = Orders(
            may_take=self._may_take(node.placed.node),
            go=self._go,
            pause=self.wants_pause,
            stop=self._order_to_stop or self.stop_reason,
            has_part=node.part is not None,
        )
        if orders == node.said and now - node.said_at < SAY_S:
            node.wire.flush()
            return
        node.said, node.said_at = orders, now
        node.wire.send(orders)

    def enter(self, phase: Phase, round_number: int) -> None:
        """See ``Peers.enter``."""
        self._phase, self._round = phase, round_number

    def wish_stop(self, reason: str) -> None:
        """See ``Peers.wish_stop``."""
        self._order_to_stop = self._order_to_stop or reason

    def may_take_devices(self) -> bool:
        """See ``Peers.may_take_devices``."""
        return self._may_take(self._my.node)

    def may_start(self) -> bool:
        """See ``Peers.may_start``."""
        return self._go >= self._round

    def are_paused(self) -> bool:
        """See ``Peers.are_paused``."""
        return all(node.part is not None or node.stands((Phase.PAUSED,), self._round) for node in self._others.values())

    def end(self, part: Part) -> None:
        """See ``Peers.end``."""
        self._phase = Phase.ENDED
        self._ended_at = time.monotonic()
        self._ended_well = part.state is RunState.SUCCEEDED
        if not self._ended_well:
            name = name_of(self._my.placement.head)
            self._order_to_stop = self._order_to_stop or self.stop_reason or f"The {name} ended: {part.message}"

    def is_done(self, now: float) -> bool:
        """See ``Peers.is_done``; a part that does not end in time counts as lost."""
        waits_for = [node for node in self._others.values() if node.part is None]
        if not waits_for or self._ended_at is None:
            return not waits_for
        waited_s = now - self._ended_at
        if self._ended_well and (self.stop_reason or self._order_to_stop or waited_s > _FINISH_LIMIT_S):
            self._order_to_stop = self._order_to_stop or self.stop_reason or "The head has ended."
            self._ended_well, self._ended_at = False, now
        elif not self._ended_well and waited_s > self._my.ending_s + self._my.peer_limit_s + ENDING_LIMIT_S:
            for node in waits_for:
                self._lose(node, f"The {name_of(node.placed)} did not end its part in time.", 0.0)
        return False

    def close(self) -> None:
        """See ``Peers.close``."""
        for wire in (*(node.wire for node in self._others.values()), *(wire for wire, _, _ in self._strangers)):
            if wire is not None:
                wire.close()
        self._listener.close()


def _listen(address: str, port: int) -> socket.socket:
    """Listen on the head's address; where that is a name or an outer address, on all.

    Raises:
        EnvironmentProblem: The port is in use.
    """
    # Behind a name or a translated address there is no other choice than to listen on all.
    for where in (address, "0.0.0.0"):
        family = socket.AF_INET6 if ":" in where else socket.AF_INET
        try:
            listener = socket.create_server((where, port), family=family, backlog=64)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                message = f"Port {port}, on which the nodes of the run meet, is in use on this host."
                raise EnvironmentProblem(message, "Launch it again: another port is chosen.") from error
            continue
        listener.setblocking(False)
        return listener
    raise EnvironmentProblem(f"This host cannot listen on {address}:{port}.", "Check the host's address.")
