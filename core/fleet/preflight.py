"""Looks at hosts before a launch: everything at once, on all hosts at once, each finding with its remedy.

It needs no Python of ours on a host and changes nothing there. A host that does not answer gives one finding; it does
not keep the others waiting longer than its own time limits. What is found is judged in ``core.fleet.host_findings`` and,
for several hosts together, ``core.fleet.between_hosts``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import msgspec

from core.contracts.errors import Cancelled, EnvironmentProblem, PilothouseError
from core.contracts.hosts import LOCAL_HOST, CheckReport, Finding, HostRecord, Progress, RuntimeRecord, Watcher
from core.contracts.links import Link
from core.contracts.specs import RunSpec
from core.fleet.between_hosts import Member, reach_findings, shared_findings, version_findings
from core.fleet.demands import Demands, demands_of
from core.fleet.host_findings import ERROR, OK, finding, host_findings
from core.fleet.probe_script import probe_host
from core.fleet.runtimes import Links
from core.fleet.self_test_answer import MARK, SelfTest
from core.fleet.worker_command import command_of

MOST_AT_ONCE = 64
_VERSIONS_LIMIT_S = 60.0

_T = TypeVar("_T")
_Look = tuple[list[Finding], Member | None]


def check_hosts(
    pool: Links, records: Sequence[HostRecord], spec: RunSpec | None, watcher: Watcher
) -> tuple[CheckReport, ...]:
    """Look at hosts, and at what lies between them.

    Args:
        pool: The connections; ``local`` is this machine.
        records: The hosts, the head of the run first.
        spec: The run that is planned; None to look at the hosts as such.
        watcher: Sees the progress; may cancel.

    Returns:
        One report for each host, in the order given.

    Raises:
        UserError: The spec names a kind that does not exist.
        Cancelled: The user cancelled; what was asked of hosts ends by itself.
    """
    demands = None if spec is None else demands_of(spec)
    looks = _in_parallel(
        [lambda record=record: _look(pool, record, demands) for record in records], watcher, "Looking at the hosts"
    )
    members = [member for _, member in looks if member is not None]
    together: dict[str, list[Finding]] = {}
    if len(members) > 1:
        watcher.report(Progress(stage="Looking at what lies between the hosts", done=0.8))
        parts = (reach_findings(members, watcher.is_cancelled), shared_findings(members), version_findings(members))
        for part in parts:
            for name, findings in part.items():
                together.setdefault(name, []).extend(findings)
    watcher.report(Progress(stage="Done", done=1.0))
    return tuple(
        _report(record.name, [*findings, *together.get(record.name, [])])
        for record, (findings, _) in zip(records, looks, strict=True)
    )


def _report(name: str, findings: list[Finding]) -> CheckReport:
    worst_first = sorted(findings, key=lambda found: [*type(found.level)].index(found.level), reverse=True)
    is_ok = all(found.level is not ERROR for found in findings)
    return CheckReport(host=name, ok=is_ok, findings=tuple(worst_first))


def _in_parallel(tasks: Sequence[Callable[[], _T]], watcher: Watcher, stage: str) -> list[_T]:
    """Carry all tasks out at once; Cancelled does not wait for them."""
    threads = ThreadPoolExecutor(max_workers=min(max(len(tasks), 1), MOST_AT_ONCE), thread_name_prefix="preflight")
    try:
        futures: list[Future[_T]] = [threads.submit(task) for task in tasks]
        open_ones: set[Future[_T]] = set(futures)
        while open_ones:
            if watcher.is_cancelled():
                raise Cancelled
            done, open_ones = wait(open_ones, timeout=0.1, return_when=FIRST_COMPLETED)
            if done:
                ready = len(futures) - len(open_ones)
                share = 0.8 * ready / len(futures)
                watcher.report(Progress(stage=stage, done=share, line=f"{ready} of {len(futures)} hosts"))
        return [future.result() for future in futures]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _look(pool: Links, record: HostRecord, demands: Demands | None) -> _Look:
    """Look at one host; whatever goes wrong with it becomes a finding."""
    began = time.monotonic()
    try:
        link = pool.link(record.name)
        connected_s = time.monotonic() - began
        paths = [] if demands is None else [path for _, path in demands.paths]
        facts = probe_host(link, record.work_dir, paths)
    except Cancelled as error:
        return [finding(ERROR, "reachable", "The connection was closed meanwhile.", error.hint)], None
    except PilothouseError as error:
        return [finding(ERROR, "reachable", error.message, error.hint or "Look at the host and its network.")], None
    found = [finding(OK, "reachable", f"It answers ({connected_s:.2f} s to connect).")]
    tested, problems = _versions(link, record)
    found += problems
    found += host_findings(record, facts, tested, demands)
    return found, Member(record=record, link=link, facts=facts, tested=tested)


def _versions(link: Link, record: HostRecord) -> tuple[SelfTest | None, list[Finding]]:
    """Ask the host's Python environment what is installed."""
    runtime = record.runtime
    if record.name == LOCAL_HOST and runtime.kind == "none":
        runtime = RuntimeRecord(kind="interpreter", python=sys.executable)
    if runtime.kind == "none":
        return None, []
    try:
        done = link.run(command_of(runtime, "core.fleet.self_test", ["versions"]), timeout_s=_VERSIONS_LIMIT_S)
    except EnvironmentProblem as error:
        return None, [finding(ERROR, "python", error.message, error.hint)]
    line = next((line for line in done.stdout.split(b"\n") if line.startswith(MARK.encode())), None)
    if line is None:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        what = f"The Python environment does not start: {said[-1][:300] if said else f'exit status {done.code}'}."
        return None, [finding(ERROR, "python", what, f"Repair it: pilothouse hosts install {record.name}")]
    return msgspec.json.decode(line.removeprefix(MARK.encode()), type=SelfTest), []
