"""What the agent can be asked about the host and its runs: one method for each request. Called on threads of their own.

The work is that of ``core.jobs`` and ``core.hardware``; here requests are told apart and answers put together.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.cli.agent_network import Listeners, connect, free_ports, interfaces
from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import HostGpu
from core.contracts.ids import RunId, is_run_id
from core.hardware.probe import probe
from core.jobs import queue
from core.jobs.checkpoints import hash_path
from core.jobs.processes import end_processes, marked_processes
from core.jobs.profiling import request_profile
from core.jobs.reconcile import examine
from core.jobs.records import ExitRecord, SupervisorRecord, read_record, write_record
from core.jobs.relocate import relocated
from core.jobs.starting import prepare_attempt, start_supervisor
from core.plugins.decode import read_spec
from core.plugins.registry import registry
from core.runlog.layout import PLACEMENT, RunLayout
from core.runlog.placements import read_placement
from core.settings.home import Home


def standing_of(run_dir: Path, node: str) -> said.NodeStanding:
    """Return where a node of a run on this host stands, with its live processes once it has ended."""
    layout = RunLayout(run_dir)
    if not layout.spec.exists():
        return said.NodeStanding(node=node, is_there=False)
    standing = examine(run_dir, node)
    ended = read_record(layout.exit_record(node), ExitRecord)
    record = ended or read_record(layout.supervisor(node), SupervisorRecord)
    has_ended = standing.state is not None and standing.state.is_terminal
    return said.NodeStanding(
        node=node,
        state=standing.state,
        message=standing.message,
        hint=standing.hint,
        started=standing.started,
        ended=standing.ended,
        silent_since=standing.silent_since,
        attempt=0 if record is None else record.attempt,
        pids=tuple(sorted(marked_processes(run_dir.name, node))) if has_ended else None,
    )


class Requests:
    """Answers requests for one Pilothouse home on this host. Thread-safe."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._listeners = Listeners()
        self._methods: dict[type[said.Request], Callable[[Any], said.AnyAnswer]] = {
            said.Probe: lambda _: said.Hardware(report=probe()),
            said.Interfaces: lambda _: said.InterfaceList(interfaces=interfaces()),
            said.FreePorts: lambda asked: said.PortList(ports=free_ports(asked.count)),
            said.Listen: self._listen,
            said.EndListen: self._end_listen,
            said.Connect: connect,
            said.PrepareRun: self._prepare,
            said.CheckSpec: self._check,
            said.StartRun: self._start,
            said.StandingOf: self._standing,
            said.StopRun: self._stop,
            said.PauseRun: self._pause,
            said.ProfileRun: self._profile,
            said.ContinueRun: self._continue,
            said.EndLeftovers: self._end_leftovers,
            said.Processes: lambda asked: said.PidList(pids=tuple(sorted(marked_processes(asked.run_id)))),
            said.RemoveRun: self._remove,
            said.Gpus: self._gpus,
            said.Queue: lambda _: said.QueueList(entries=queue.entries(self._home.path)),
            said.MoveQueued: self._move,
            said.Packages: _packages,
            said.Usage: self._usage,
            said.Listing: self._listing,
        }

    def answer(self, request: said.Request) -> said.AnyAnswer:
        """Return the answer; what stands against it becomes ``Refused``."""
        try:
            return self._methods[type(request)](request)
        except UserError as error:
            return said.Refused(message=error.message, hint=error.hint)
        except EnvironmentProblem as error:
            return said.Refused(message=error.message, hint=error.hint, is_environment=True)
        except OSError as error:
            message = f"The host cannot do it: {error.strerror or error}."
            return said.Refused(message=message, hint="Check space and permissions there.", is_environment=True)

    def close(self) -> None:
        """Stop listening wherever that still goes on."""
        self._listeners.close()

    # -- the host --------------------------------------------------------------------------------------------------

    def _listen(self, asked: said.Listen) -> said.AnyAnswer:
        return said.PortList(ports=(self._listeners.listen(asked.token, asked.port),))

    def _end_listen(self, asked: said.EndListen) -> said.AnyAnswer:
        self._listeners.end(asked.token)
        return said.Done()

    def _gpus(self, asked: said.Gpus) -> said.AnyAnswer:
        del asked
        report = probe()
        holders: dict[int, list[str]] = {gpu.index: [] for gpu in report.gpus}
        used: dict[int, int] = dict.fromkeys(holders, 0)
        for entry in queue.entries(self._home.path):
            for device in entry.devices:
                holders.setdefault(device, []).append(entry.name or entry.run_id)
        for process in report.gpu_processes:
            who = " ".join(part for part in (process.user, process.name) if part) or "a process"
            holders[process.gpu_index].append(f"{who} (pid {process.pid})")
            used[process.gpu_index] += process.memory_bytes or 0
        gpus = tuple(
            HostGpu(
                index=gpu.index,
                name=gpu.name,
                memory_bytes=gpu.memory_total_bytes or 0,
                memory_used_bytes=used[gpu.index],
                held_by=tuple(holders[gpu.index]),
            )
            for gpu in report.gpus
        )
        return said.GpuList(gpus=gpus)

    def _move(self, asked: said.MoveQueued) -> said.AnyAnswer:
        queue.move(self._home.path, asked.run_id, asked.position)
        return said.Done()

    def _usage(self, asked: said.Usage) -> said.AnyAnswer:
        path = Path(asked.path).expanduser() if asked.path else self._home.path
        while not path.exists() and path != path.parent:
            path = path.parent
        usage = shutil.disk_usage(path)
        return said.DiskSpace(free_bytes=usage.free, total_bytes=usage.total)

    # -- runs ------------------------------------------------------------------------------------------------------

    def run_dir(self, run_id: str) -> Path:
        """Return the directory of a run; UserError for what is no run's id: it might name any folder."""
        if not is_run_id(run_id):
            raise UserError(f"{run_id!r} is no run's id.")
        return self._home.run_dir(RunId(run_id))

    def _existing(self, run_id: str) -> Path:
        run_dir = self.run_dir(run_id)
        if not RunLayout(run_dir).spec.exists():
            raise UserError(f"There is no run {run_id!r} on this host.")
        return run_dir

    def _nodes(self, run_dir: Path) -> tuple[str, ...]:
        placement = read_placement(run_dir)
        return () if placement is None else tuple(placed.node for placed in placement.nodes)

    def _prepare(self, asked: said.PrepareRun) -> said.AnyAnswer:
        run_dir = self.run_dir(asked.run_id)
        if RunLayout(run_dir).spec.exists():
            self._prepare_again(run_dir, asked)
            return said.Done()
        partial = run_dir.with_name(f".{run_dir.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        layout = RunLayout(partial)
        layout.control.mkdir(parents=True)
        layout.spec.write_text(asked.spec_toml, encoding="utf-8")
        write_record(layout.placement, asked.placement)
        try:
            if run_dir.exists():  # copied code may be there already
                for path in partial.iterdir():
                    path.rename(run_dir / path.name)
                partial.rmdir()
            else:
                partial.rename(run_dir)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            if not RunLayout(run_dir).spec.exists():  # else another node that shares the folder was quicker
                raise
        return said.Done()

    def _prepare_again(self, run_dir: Path, asked: said.PrepareRun) -> None:
        layout = RunLayout(run_dir)
        before = read_placement(run_dir)
        if before is not None and before.attempt != asked.placement.attempt:
            layout.placement.replace(run_dir / PLACEMENT.replace(".json", f".attempt{before.attempt}.json"))
            # Requests were meant for the last attempt, also where this host's node has another name now.
            layout.stop_request.unlink(missing_ok=True)
            layout.pause_request.unlink(missing_ok=True)
            os.utime(layout.spec)
        if before != asked.placement:
            write_record(layout.placement, asked.placement)
        layout.control.mkdir(exist_ok=True)
        for placed in asked.placement.nodes:
            if examine(run_dir, placed.node).state is not None:
                prepare_attempt(run_dir, placed.node)

    def _check(self, asked: said.CheckSpec) -> said.AnyAnswer:
        run_dir = self._existing(asked.run_id)
        spec = read_spec(RunLayout(run_dir).spec)
        placement = read_placement(run_dir)
        if placement is not None:
            spec = relocated(spec, placement, asked.node)
        problems = registry().get(str(spec.__struct_config__.tag)).check(spec)
        found = tuple(said.Problem(field=p.field, message=p.message, hint=p.hint) for p in problems)
        return said.ProblemList(problems=found)

    def _start(self, asked: said.StartRun) -> said.AnyAnswer:
        start_supervisor(self._existing(asked.run_id), asked.attempt, node=asked.node)
        return said.Done()

    def _standing(self, asked: said.StandingOf) -> said.AnyAnswer:
        run_dir = self.run_dir(asked.run_id)
        return said.StandingList(standings=tuple(standing_of(run_dir, node) for node in asked.nodes))

    def _stop(self, asked: said.StopRun) -> said.AnyAnswer:
        run_dir = self._existing(asked.run_id)
        _request(RunLayout(run_dir).stop_request)
        for node in self._nodes(run_dir):
            if self._has_ended(run_dir, node):
                self._end(run_dir, node, 2.0)
        return said.Done()

    def _pause(self, asked: said.PauseRun) -> said.AnyAnswer:
        _request(RunLayout(self._existing(asked.run_id)).pause_request)
        return said.Done()

    def _continue(self, asked: said.ContinueRun) -> said.AnyAnswer:
        RunLayout(self._existing(asked.run_id)).pause_request.unlink(missing_ok=True)
        return said.Done()

    def _profile(self, asked: said.ProfileRun) -> said.AnyAnswer:
        request_profile(self._existing(asked.run_id), asked.steps, asked.ranks)
        return said.Done()

    @staticmethod
    def _has_ended(run_dir: Path, node: str) -> bool:
        state = examine(run_dir, node).state
        return state is not None and state.is_terminal

    @staticmethod
    def _end(run_dir: Path, node: str, grace_s: float) -> set[int]:
        if not marked_processes(run_dir.name, node):
            return set()
        return end_processes(lambda: marked_processes(run_dir.name, node), grace_s=grace_s)

    def _end_leftovers(self, asked: said.EndLeftovers) -> said.AnyAnswer:
        run_dir = self.run_dir(asked.run_id)
        if not RunLayout(run_dir).spec.exists():  # removed by hand: the mark alone tells what belonged to it
            left = end_processes(lambda: marked_processes(asked.run_id), grace_s=asked.grace_s)
            return said.PidList(pids=tuple(sorted(left)))
        survivors: set[int] = set()
        for node in self._nodes(run_dir):
            if asked.is_forced or self._has_ended(run_dir, node):
                survivors |= self._end(run_dir, node, asked.grace_s)
        return said.PidList(pids=tuple(sorted(survivors)))

    def _remove(self, asked: said.RemoveRun) -> said.AnyAnswer:
        run_dir = self.run_dir(asked.run_id)
        live = marked_processes(asked.run_id)
        if live:
            raise UserError(f"The run {asked.run_id} still has {len(live)} processes on this host.", "Stop it first.")
        if run_dir.is_dir():
            shutil.rmtree(run_dir)
        return said.Done()

    def _listing(self, asked: said.Listing) -> said.AnyAnswer:
        run_dir = self._existing(asked.run_id)
        folder = (run_dir / asked.folder).resolve()
        if not folder.is_relative_to(run_dir.resolve()):
            raise UserError(f"{asked.folder!r} is outside of the run's directory.")
        files: list[said.ListedFile] = []
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # a checkpoint may be removed meanwhile
                if path.is_file():
                    sha256 = hash_path(path)[0] if asked.hashed else ""
                    name = path.relative_to(run_dir.resolve()).as_posix()
                    files.append(said.ListedFile(path=name, size=path.stat().st_size, sha256=sha256))
        return said.FileList(files=tuple(files))


def _packages(asked: said.Packages) -> said.AnyAnswer:
    versions: dict[str, str | None] = {}
    for name in asked.names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return said.PackageVersions(versions=versions)


def _request(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with contextlib.suppress(OSError):  # on a full disk the empty file is the request
        path.write_text(f"{time.time():.3f}\n", encoding="ascii")
