"""Runs on hosts by SSH: all nodes start or none, and what was begun on the others is undone and said.

A launch: survey what is copied, plan, make the run directory here, then on all hosts at once prepare, copy, check, and at
last start. Everything after the start is the supervisors' work. See ``core.fleet.remote_runs`` for the other engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from core.contracts.errors import Cancelled, EnvironmentProblem, FieldProblem, InvalidSpec, PilothouseError, UserError
from core.contracts.hosts import HostRecord, Progress, Watcher
from core.contracts.ids import RunId, new_run_id
from core.contracts.placement import LOCAL_NODE, NodePlacement, Placement
from core.contracts.specs import RunSpec
from core.fleet.agent_host import AgentHost
from core.fleet.checkpoint_move import newest_checkpoint
from core.fleet.copying import RECEIVER_MODULE, Copy, Sender, copies_of
from core.fleet.manifest import HashMemory, survey
from core.fleet.on_hosts import attempt_all, do_all, joined
from core.fleet.parts import parts_of
from core.fleet.plan import check_hosts_of, plan, plan_text
from core.fleet.pool import HostPool
from core.fleet.run_folder import CODE, RunFolder, from_snapshot
from core.fleet.worker_command import command_of
from core.plugins.decode import read_spec
from core.settings.home import Home

_END_LIMIT_S = 20.0
_END_POLL_S = 0.2
Outcome = TypeVar("Outcome")


class _Member:
    """One host of a launch: its agent, and the program that takes copies in, started early to be ready in time."""

    def __init__(self, pool: HostPool, record: HostRecord, *, is_sent_to: bool) -> None:
        self._pool = pool
        self.agent = AgentHost(pool, record)
        self.name = record.name
        self.is_prepared = False
        self._sender: Sender | None = None
        if is_sent_to:
            self._sender = Sender(self.agent.link, command_of(record.runtime, RECEIVER_MODULE, [self.agent.work_dir]))

    def reconnected(self) -> AgentHost:
        """Return its agent: another one where the first was lost."""
        self.agent = AgentHost(self._pool, self.agent.record)
        return self.agent

    def send(self, copies: Sequence[Copy], watcher: Watcher) -> None:
        """Make the copies on the host."""
        if self._sender is not None and copies:
            self._sender.send(copies, watcher)

    def close(self) -> None:
        """Let go of the program that takes copies in."""
        if self._sender is not None:
            self._sender.close()


class DirectRuns:
    """Launches and resumes on hosts. Thread-safe; blocks for seconds, longer where data is copied."""

    def __init__(self, home: Home, pool: HostPool) -> None:
        self._home = home
        self._pool = pool

    def preview(self, spec: RunSpec) -> str:
        """Return what a launch would copy, and where each rank would go."""
        check_hosts_of(spec)
        copies = copies_of(self._home, spec, "RUN", lambda: False)
        hosts = [AgentHost(self._pool, self._pool.record(name)) for name in spec.launch.hosts]
        placement = plan(spec, "RUN", hosts, copies=tuple(copy.record for copy in copies))
        return "\n".join([plan_text(placement), *(copy.sentence() for copy in copies)])

    def launch(self, spec: RunSpec, watcher: Watcher) -> RunId:
        """Start a run on its hosts; nothing is left anywhere when one of them cannot.

        Raises:
            InvalidSpec: A host finds problems in the spec; all are listed.
            UserError: The hosts are not fit for it (busy devices, no runtime, a kind for one host).
            EnvironmentProblem: A host does not answer or is not as needed; which one is said.
            Cancelled: The user cancelled.
        """
        check_hosts_of(spec)
        run_id = new_run_id(spec.name)
        watcher.report(Progress(stage="Reading what is to be copied"))
        copies = copies_of(self._home, spec, run_id, watcher.is_cancelled)
        members = self._connect(spec.launch.hosts, watcher, is_sent_to=bool(copies))
        folder = RunFolder(self._home, run_id)
        try:
            watcher.report(Progress(stage="Planning"))
            placement = plan(
                spec, run_id, [member.agent for member in members], copies=tuple(copy.record for copy in copies)
            )
            code = next((copy for copy in copies if not copy.is_shared), None)
            folder.make(spec, placement, code)
            starting = _Starting(folder, spec, placement, members, watcher)
            starting.copies = [from_snapshot(c, folder.path) if c is code else c for c in copies]
            starting.run(on_failure=folder.remove)
        finally:
            for member in members:
                member.close()
        return run_id

    def resume(self, run_id: str, hosts: tuple[str, ...] | None, watcher: Watcher) -> int:
        """Start an ended run once more from its last checkpoint; return the number of the attempt.

        Args:
            run_id: The run.
            hosts: Other hosts to run on, the head first; None for the same.
            watcher: Sees the progress; may cancel.

        Raises:
            InvalidSpec: As ``launch``; UserError and EnvironmentProblem likewise.
            EnvironmentProblem: The checkpoints are on a host that does not answer; or processes of the last attempt
                could not be ended.
        """
        folder = RunFolder(self._home, run_id)
        before = folder.placement()
        spec = read_spec(folder.layout.spec)
        names = hosts or tuple(placed.host or LOCAL_NODE for placed in before.nodes)
        old_names = {placed.host or LOCAL_NODE for placed in before.nodes}
        fresh = frozenset(names) - old_names
        copies = self._copies_again(folder, spec, before, watcher) if fresh else []
        members = self._connect(names, watcher, is_sent_to=bool(fresh) or names[0] != before.head.host)
        try:
            self._end_earlier(folder, members, before)
            spec = moved_to(spec, names)
            placement = plan(
                spec,
                run_id,
                [member.agent for member in members],
                copies=before.copies,
                attempt=folder.last_attempt() + 1,
                taken=folder.node_roles(),
            )
            checkpoint = newest_checkpoint(self._pool, folder, names[0], watcher)
            folder.begin_attempt(placement)
            starting = _Starting(folder, spec, placement, members, watcher)
            starting.copies, starting.fresh = copies, fresh
            if checkpoint is not None:
                starting.before_start = lambda: members[0].send([checkpoint], watcher)
            starting.run(on_failure=lambda: folder.take_back_attempt(before), is_removed=False)
        finally:
            for member in members:
                member.close()
        return placement.attempt

    def _copies_again(self, folder: RunFolder, spec: RunSpec, before: Placement, watcher: Watcher) -> list[Copy]:
        """Return the copies of the first launch for hosts that have none: code from its snapshot, data as it was.

        Raises:
            UserError: The data here is not what the run began with.
        """
        memory = HashMemory(self._home.hashes_file)
        found: list[Copy] = []
        for copied in before.copies:
            is_code = copied.there.startswith("runs/")
            source = folder.path / CODE if is_code else Path(copied.here)
            exclude = () if is_code else spec.launch.exclude
            manifest = survey(source, exclude, memory, is_cancelled=watcher.is_cancelled)
            if not is_code and manifest.digest not in copied.there:
                raise UserError(
                    f"{copied.here!r} is not what it was when the run began.",
                    "Resume the run on hosts that have its data, or clone it.",
                )
            found.append(Copy(manifest=manifest, here=copied.here, there=copied.there, is_shared=not is_code))
        memory.save()
        return found

    def _connect(self, names: Sequence[str], watcher: Watcher, *, is_sent_to: bool) -> list[_Member]:
        watcher.report(Progress(stage=f"Connecting to {', '.join(names)}"))
        records = [self._pool.record(name) for name in names]

        def connected(record: HostRecord) -> _Member:
            if watcher.is_cancelled():
                raise Cancelled
            return _Member(self._pool, record, is_sent_to=is_sent_to)

        outcomes, failures = attempt_all(connected, records)
        if failures:
            for member in outcomes:
                if member is not None:
                    member.close()
            raise joined([(record.name, error) for record, error in failures])
        return [member for member in outcomes if member is not None]

    # -- acts on a run that is there ---------------------------------------------------------------------------------

    def _on_each(
        self, folder: RunFolder, act: Callable[[AgentHost], Outcome], names: Sequence[str] = ()
    ) -> tuple[dict[str, Outcome], list[tuple[str, PilothouseError]]]:
        """Do something on the hosts of a run's present attempt; return what came of it by host, and the failures."""
        chosen = names or tuple(dict.fromkeys(placed.host or LOCAL_NODE for placed in folder.placement().nodes))
        outcomes, failures = attempt_all(lambda name: act(AgentHost(self._pool, self._pool.record(name))), chosen)
        failed = {name for name, _ in failures}
        found = {
            name: outcome
            for name, outcome in zip(chosen, outcomes, strict=True)
            if name not in failed and outcome is not None
        }
        return found, failures

    def stop(self, folder: RunFolder) -> None:
        """Ask all hosts; one that hears it and goes on is enough, for the supervisors tell each other."""

        def stopped(host: AgentHost) -> bool:
            host.stop(folder.run_id)
            return True

        parts = parts_of(folder.path, folder.placement())
        heard, failures = self._on_each(folder, stopped)
        if failures and heard.keys() <= {part.placed.host or LOCAL_NODE for part in parts if part.has_ended}:
            raise joined(failures)

    def pause(self, folder: RunFolder) -> None:
        """Ask the head, whose supervisor has the others pause too."""
        self._on_head(folder, lambda host: host.pause(folder.run_id))

    def proceed(self, folder: RunFolder) -> None:
        """Let the head go on, whose supervisor has the others go on too."""
        self._on_head(folder, lambda host: host.proceed(folder.run_id))

    def profile(self, folder: RunFolder, steps: int, ranks: tuple[int, ...]) -> None:
        """Ask the head's ranks for a profile."""
        self._on_head(folder, lambda host: host.profile(folder.run_id, steps, ranks))

    def _on_head(self, folder: RunFolder, act: Callable[[AgentHost], None]) -> None:
        name = folder.placement().head.host or LOCAL_NODE
        act(AgentHost(self._pool, self._pool.record(name)))

    def end_leftovers(self, folder: RunFolder) -> dict[str, tuple[int, ...]]:
        """End what is left of an ended run on its hosts.

        Returns:
            By host, the processes that could not be ended; empty for each host where all is gone.

        Raises:
            EnvironmentProblem: A host does not answer, so that nothing is known of it; the others were dealt with.
        """
        ended, failures = self._on_each(
            folder, lambda host: (*host.end_leftovers(folder.run_id), *host.processes(folder.run_id))
        )
        if failures:
            raise joined(failures)
        return ended

    def remove(self, folder: RunFolder) -> tuple[str, ...]:
        """Remove the run directories on all hosts of all attempts; return sentences on what could not be removed."""
        hosts = tuple(dict.fromkeys(host for host, _ in folder.node_roles().values() if host != LOCAL_NODE))

        def removed(host: AgentHost) -> bool:
            host.end_leftovers(folder.run_id)
            host.remove(folder.run_id)
            return True

        _, failures = self._on_each(folder, removed, hosts) if hosts else ({}, [])
        return tuple(f"{name} still has the run's folder: {error.message}" for name, error in failures)

    def _end_earlier(self, folder: RunFolder, members: Sequence[_Member], before: Placement) -> None:
        """End what is left of the last attempt on the hosts of both; those that do not answer are passed over."""
        known = {member.name: member.agent for member in members}
        names = [placed.host or LOCAL_NODE for placed in before.nodes]

        def ended(name: str) -> tuple[int, ...]:
            agent = known.get(name) or AgentHost(self._pool, self._pool.record(name))
            agent.end_leftovers(folder.run_id)
            return _awaited_end(agent, folder.run_id)  # a supervisor may still be ending its part

        outcomes, failures = attempt_all(ended, list(dict.fromkeys([*names, *known])))
        for name, left in zip(dict.fromkeys([*names, *known]), outcomes, strict=True):
            if left:
                raise EnvironmentProblem(
                    f"On {name} these processes of the run have not ended: {', '.join(map(str, left))}.",
                    "Wait until they have, or end them there; then resume again.",
                )
        for name, error in failures:
            if name in known:
                raise error


def moved_to(spec: RunSpec, names: tuple[str, ...]) -> RunSpec:
    """Return the spec with these hosts in the place of its own; devices of hosts that left are not asked for."""
    asked = spec.launch.devices.split()
    kept = [word for word in asked if "=" not in word or word.partition("=")[0] in names]
    launch = msgspec.structs.replace(spec.launch, hosts=names, devices=" ".join(kept) or "auto")
    return msgspec.structs.replace(spec, launch=launch)


def _awaited_end(agent: AgentHost, run_id: str) -> tuple[int, ...]:
    """Wait a while for the run's processes on a host to end; return those that have not."""
    deadline = time.monotonic() + _END_LIMIT_S
    while (left := agent.processes(run_id)) and time.monotonic() < deadline:
        time.sleep(_END_POLL_S)
    return left


class _Starting:
    """Prepares and starts one attempt on all hosts, or undoes it.

    Attributes:
        copies: What is copied to the hosts.
        fresh: The hosts that it is copied to.
        before_start: What else is to be done once all hosts are prepared.
    """

    def __init__(
        self,
        folder: RunFolder,
        spec: RunSpec,
        placement: Placement,
        members: Sequence[_Member],
        watcher: Watcher,
    ) -> None:
        self.copies: Sequence[Copy] = ()
        self.fresh = frozenset(member.name for member in members)
        self.before_start: Callable[[], object] = lambda: None
        self._folder = folder
        self._run_id = folder.run_id
        self._spec = spec
        self._placement = placement
        self._pairs = list(zip(members, placement.nodes, strict=True))
        self._watcher = watcher

    def run(self, *, on_failure: Callable[[], object], is_removed: bool = True) -> None:
        """Start everywhere.

        Args:
            on_failure: Called after the hosts were brought back, when it fails.
            is_removed: The run directories on the hosts are removed then, too. Where one could not be, the run stays
                here: what may go on there can be seen and stopped.
        """
        try:
            self._watcher.report(Progress(stage="Preparing the hosts"))
            problems = do_all(self._prepare, self._pairs, _name)
            found = [problem for some in problems for problem in some]
            if found:
                raise InvalidSpec(tuple(found))
            self.before_start()
            if self._watcher.is_cancelled():
                raise Cancelled
            self._watcher.report(Progress(stage="Starting"))
            do_all(self._start, self._pairs, _name)
        except (PilothouseError, OSError) as error:
            left = self._undo(is_removed=is_removed)
            if not left or not is_removed:
                on_failure()
            if left and isinstance(error, PilothouseError) and not isinstance(error, (InvalidSpec, Cancelled)):
                raise type(error)(f"{error.message} {left}", error.hint) from error
            raise

    def _prepare(self, pair: tuple[_Member, NodePlacement]) -> list[FieldProblem]:
        member, placed = pair
        member.is_prepared = True
        member.agent.prepare(self._run_id, self._spec, self._placement)
        if member.name in self.fresh:
            here = Path(placed.run_dir) == self._folder.path
            member.send([copy for copy in self.copies if copy.is_shared or not here], self._watcher)
        return list(member.agent.check_spec(self._run_id, placed.node))

    def _start(self, pair: tuple[_Member, NodePlacement]) -> None:
        member, placed = pair
        member.agent.start(self._run_id, placed.node, self._placement.attempt)

    def _undo(self, *, is_removed: bool) -> str:
        """Stop and remove what was begun; return a sentence about what is left on which host."""

        def undone(pair: tuple[_Member, NodePlacement]) -> None:
            member, placed = pair
            agent = member.reconnected()  # what ended the launch may have been a short cut
            # Not by a stop request: a supervisor that waits for nodes which never come would take its time.
            agent.end_leftovers(self._run_id, is_forced=True)
            if is_removed and Path(placed.run_dir) != self._folder.path:
                agent.remove(self._run_id)

        _, failures = attempt_all(undone, [pair for pair in self._pairs if pair[0].is_prepared])
        where = ", ".join(pair[0].name for pair, _ in failures)
        return f"The run {self._run_id} may still be there on {where}: stop it when that answers." if where else ""


def _name(pair: tuple[_Member, NodePlacement]) -> str:
    return pair[0].name
