"""The agent's pushing of what followed runs write: in turns, as far as the line has room, and where their nodes stand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from core.cli.agent_line import Line
from core.cli.agent_requests import Requests, standing_of
from core.contracts import agent as said
from core.jobs.pushing import RunPusher

_POLL_S = 0.2
_BEAT_S = 2.0
_TURN_BYTES = 1 << 20


@dataclass(slots=True, eq=False)
class _Followed:
    """A followed run, and how far the present pass over its files is."""

    asked: said.Follow
    pusher: RunPusher
    chunks: Iterator[said.FileChunk] | None = None
    began: float = 0.0
    standings: tuple[said.NodeStanding, ...] = ()
    told_at: float = 0.0
    look_again: bool = False
    not_before: float = 0.0


class Pushing:
    """Pushes what the nodes of followed runs write, and where they stand. One thread of its own.

    A run with much to send gets its turn like any other: a backlog of one does not hold up the rest.
    """

    def __init__(self, requests: Requests, line: Line) -> None:
        self._requests = requests
        self._line = line
        self._lock = threading.Lock()
        self._runs: dict[str, _Followed] = {}
        self._wake = threading.Event()
        threading.Thread(target=self._loop, name="pushing", daemon=True).start()

    def follow(self, asked: said.Follow) -> None:
        """Push a run from now on; UserError for what is no run's id."""
        pusher = RunPusher(
            self._requests.run_dir(asked.run_id),
            asked.nodes,
            asked.offsets,
            backlog_bytes=asked.stdout_backlog_bytes,
            tail_bytes=asked.stdout_tail_bytes,
        )
        with self._lock:
            self._runs[asked.run_id] = _Followed(asked, pusher)
        self._wake.set()

    def unfollow(self, run_id: str) -> None:
        """Push a run no more."""
        with self._lock:
            self._runs.pop(run_id, None)

    def _loop(self) -> None:
        while not self._line.is_closed:
            with self._lock:
                runs = list(self._runs.values())
            has_more = False
            for run in runs:
                if time.monotonic() >= run.not_before:
                    has_more = self._turn(run) or has_more
            if not has_more:
                self._wake.wait(_POLL_S)
            self._wake.clear()

    def _turn(self, run: _Followed) -> bool:
        """Push the next part of a run; return whether more of it waits."""
        try:
            return self._push(run)
        except Exception as error:  # noqa: BLE001 - the top frame of a run's turn; the others must go on
            run.chunks, run.not_before = None, time.monotonic() + _BEAT_S
            why = (
                error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
            )
            message = f"What the run wrote cannot be read on the host: {why}."
            self._line.send(said.Unread(run_id=run.asked.run_id, message=message))
            return False

    def _push(self, run: _Followed) -> bool:
        run_id, now = run.asked.run_id, time.monotonic()
        if run.chunks is None:
            run.began = time.time()
            # Judged before the files are read: who left an exit record had written everything else.
            is_due = run.look_again or now - run.told_at >= _BEAT_S
            run_dir = self._requests.run_dir(run_id)
            run.standings = tuple(standing_of(run_dir, node) for node in run.asked.nodes) if is_due else ()
            run.look_again = False
            run.chunks = run.pusher.chunks()
        room = _TURN_BYTES
        for chunk in run.chunks:
            self._line.push(chunk)
            if self._line.is_closed or self._runs.get(run_id) is not run:
                return False
            if chunk.is_record:  # a record came or went: look again, after this pass, at where the run stands
                run.look_again = True
            room -= len(chunk.data)
            if room <= 0:
                return True
        run.chunks = None
        if run.standings:
            self._line.send(said.CaughtUp(run_id=run_id, began=run.began, standings=run.standings))
            run.told_at = now
        return False
