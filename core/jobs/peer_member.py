"""A member's side of the supervisors' star: connects to the head, and again whenever it must, reports, obeys."""

from __future__ import annotations

import errno
import select
import socket
import time

from core.jobs.membership import ENDING_LIMIT_S, FROZEN_S, HEAD_NAME, SAY_S, Log, Membership, Peers, name_of
from core.jobs.peer_wire import (
    Challenge,
    Hello,
    Message,
    Orders,
    Part,
    Phase,
    Report,
    Welcome,
    Wire,
    is_proof,
    new_nonce,
    proof_of,
    shortened,
)

_CONNECT_LIMIT_S = 3.0
_RETRY_S = 0.5
_REFUSED_LIMIT_S = 5.0


class Member(Peers):
    """The side of every other node: connects, reports, obeys."""

    def __init__(self, membership: Membership, log: Log) -> None:
        super().__init__()
        self._my = membership
        self._log = log
        now = time.monotonic()
        self._heard = self._ticked = now
        self._was_heard = False
        self._refused_since: float | None = None
        self._connecting: socket.socket | None = None
        self._connect_began = 0.0
        self._wire: Wire | None = None
        self._nonce = ""
        self._is_trusted = False
        self._orders = Orders()
        self._phase = Phase.JOINED
        self._round = 0
        self._wish = ""
        self._part: Part | None = None
        self._ended_at = 0.0
        self._said: tuple[Phase, int, str, Part | None] | None = None
        self._said_at = 0.0
        self._has_lost_head = False
        self._address: tuple[str, int] | None = None

    @property
    def _head(self) -> str:
        return name_of(self._my.placement.head)

    def tick(self, now: float) -> None:
        """See ``Peers.tick``."""
        if now - self._ticked > FROZEN_S:
            self._heard += now - self._ticked
        self._ticked = now
        if self._wire is None:
            self._connect(now)
        if self._wire is not None:
            self._listen_to_head(self._wire, now)
        self._look_after_head(now)
        if self._wire is not None and self._is_trusted:
            self._report(self._wire, now)

    def _connect(self, now: float) -> None:
        if self._connecting is None:
            if now - self._connect_began >= _RETRY_S:
                self._begin_to_connect(now)
            return
        poller = select.poll()
        poller.register(self._connecting, select.POLLOUT)
        if poller.poll(0):
            problem = self._connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem == 0:
                self._wire, self._connecting, self._is_trusted = Wire(self._connecting), None, False
                return
            self._give_up_connecting(now, is_refused=problem == errno.ECONNREFUSED)
        elif now - self._connect_began > _CONNECT_LIMIT_S:
            self._give_up_connecting(now, is_refused=False)

    def _begin_to_connect(self, now: float) -> None:
        self._connect_began = now
        try:
            # A name is looked up anew only until it was once reached: looking up may block.
            if self._address is None or not self._was_heard:
                head = self._my.placement.head.address
                found = socket.getaddrinfo(head, self._my.rendezvous.watch_port, type=socket.SOCK_STREAM)
                self._address = (str(found[0][4][0]), self._my.rendezvous.watch_port)
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            self._connecting = socket.socket(family, socket.SOCK_STREAM)
            self._connecting.setblocking(False)
            problem = self._connecting.connect_ex(self._address)
        except OSError:
            self._give_up_connecting(now, is_refused=False)
            return
        if problem not in (0, errno.EINPROGRESS):
            self._give_up_connecting(now, is_refused=problem == errno.ECONNREFUSED)

    def _give_up_connecting(self, now: float, *, is_refused: bool) -> None:
        if self._connecting is not None:
            self._connecting.close()
            self._connecting = None
        if not is_refused:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now

    def _listen_to_head(self, wire: Wire, now: float) -> None:
        for message in wire.receive():
            self._take(wire, message, now)
        # A connection that is silent for a third of the limit is made anew, in time for two more tries.
        is_stuck = now - max(self._heard, self._connect_began) > max(self._my.peer_limit_s / 3, 2 * SAY_S)
        if not wire.is_open or is_stuck:
            wire.close()
            self._wire = None
            self._connect_began = now

    def _take(self, wire: Wire, message: Message, now: float) -> None:
        token = self._my.rendezvous.token
        if isinstance(message, Challenge):
            self._nonce = new_nonce()
            proof = proof_of(token, message.nonce, self._my.node)
            wire.send(
                Hello(
                    run_id=self._my.run_id,
                    attempt=self._my.attempt,
                    node=self._my.node,
                    nonce=self._nonce,
                    proof=proof,
                )
            )
        elif isinstance(message, Welcome) and is_proof(message.proof, token, self._nonce, HEAD_NAME):
            self._is_trusted, self._was_heard, self._heard, self._said = True, True, now, None
            self._refused_since = None
        elif isinstance(message, Orders) and self._is_trusted:
            self._heard, self._orders = now, message
            self.wants_pause = message.pause
            self.stop_reason = self.stop_reason or message.stop
        else:
            wire.close()

    def _look_after_head(self, now: float) -> None:
        if self.stop_reason:
            self._has_lost_head = self._has_lost_head or self._is_silent(now)
            return
        if self._was_heard and self._refused_since is not None and now - self._refused_since > _REFUSED_LIMIT_S:
            self._lose_head(f"The supervisor of the run on {self._head}, the head, has ended.")
        elif self._is_silent(now):
            silent_s = now - self._heard
            verb = "was not heard from" if self._was_heard else "could not be reached"
            self._lose_head(f"The {self._head}, the head of the run, {verb} for {silent_s:.0f} s.")

    def _is_silent(self, now: float) -> bool:
        limit = self._my.peer_limit_s if self._was_heard else self._my.join_limit_s
        is_gone = self._refused_since is not None and now - self._refused_since > _REFUSED_LIMIT_S
        return now - self._heard > limit or (self._was_heard and is_gone)

    def _lose_head(self, message: str) -> None:
        self.stop_reason = message
        self._has_lost_head = True
        self._log(message, "error")

    def _report(self, wire: Wire, now: float) -> None:
        state = (self._phase, self._round, self._wish, self._part)
        if state == self._said and now - self._said_at < SAY_S:
            wire.flush()
            return
        self._said, self._said_at = state, now
        wire.send(
            Report(
                sent=time.time(),
                phase=self._phase,
                round=self._round,
                wish=self._wish,
                part=self._part,
                machine=self._my.machine,
            )
        )

    def enter(self, phase: Phase, round_number: int) -> None:
        """See ``Peers.enter``."""
        self._phase, self._round = phase, round_number

    def wish_stop(self, reason: str) -> None:
        """See ``Peers.wish_stop``; what the head or its loss asked for needs no wish."""
        if not self.stop_reason:
            self._wish = self._wish or reason

    def may_take_devices(self) -> bool:
        """See ``Peers.may_take_devices``."""
        return self._orders.may_take

    def may_start(self) -> bool:
        """See ``Peers.may_start``."""
        return self._orders.go >= self._round

    def end(self, part: Part) -> None:
        """See ``Peers.end``."""
        self._phase, self._part, self._ended_at = Phase.ENDED, shortened(part), time.monotonic()

    def is_done(self, now: float) -> bool:
        """See ``Peers.is_done``; a head that is gone is not waited for."""
        waited_s = now - self._ended_at
        return self._orders.has_part or self._has_lost_head or waited_s > self._my.peer_limit_s + ENDING_LIMIT_S

    def close(self) -> None:
        """See ``Peers.close``."""
        for connection in (self._wire, self._connecting):
            if connection is not None:
                connection.close()
