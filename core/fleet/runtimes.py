"""Makes, renews, repairs, tries out and removes the Python environment that runs use on a host.

Every environment has a folder of its own below ``<work folder>/runtimes`` and is never changed once it is whole: a new
version, and a repair, is a new folder beside it, and the host's record is what switches over. So runs that are going on
keep theirs. How a folder is filled is left to ``core.fleet.managed`` (uv) and ``core.fleet.beside`` (the user's own
interpreter, untouched).
"""

from __future__ import annotations

import time
from typing import Protocol

import msgspec

from core.contracts.errors import EnvironmentProblem
from core.contracts.hosts import Finding, FindingLevel, HostRecord, Progress, RuntimeRecord, Watcher
from core.contracts.links import Link
from core.fleet.beside import put_beside
from core.fleet.host_facts import HostFacts
from core.fleet.managed import make_managed
from core.fleet.probe_script import probe_host
from core.fleet.self_test_answer import MARK, SelfTest
from core.fleet.worker_command import command_of, with_prelude
from core.fleet.worker_wheel import worker_version
from core.settings.home import default_home

SELF_TEST_LIMIT_S = 300.0
_PRELUDE_LIMIT_S = 60.0
_REPLACED = "pilothouse-replaced"
"""File in the folder of an environment that another one has taken the place of, with the name of the host that it was of;
it goes when nothing uses it."""
# The folder comes on the input, not as an argument: else this very shell would be found to use it. An agent does not
# count: it is ours, and is started again from wherever the record says. Where the home is shared, runs on other machines
# show by their beat, and Slurm's jobs by their script, from the moment they wait.
_USERS = r"""
IFS= read -r dir
IFS= read -r work
IFS= read -r name
for found in $(printf '%s\n' "$dir" | grep -lsF -f - /proc/[0-9]*/cmdline /proc/[0-9]*/environ); do
  grep -qsF core.cli.agent "${found%/*}/cmdline" || printf '%s\n' "$found"
done
find "$work/runs" -mindepth 2 -maxdepth 2 -name 'supervisor.*.json' -mmin -2 2>/dev/null | while IFS= read -r found; do
  run=${found%/*}
  [ -e "$run/exit.${found##*/supervisor.}" ] || grep -lsF -e "$name" "$run/placement.json" "$run/job.sh"
done
command -v squeue >/dev/null 2>&1 || exit 0
timeout 10 squeue --noheader --user="$(id -un)" --format=%o 2>/dev/null | while IFS= read -r found; do
  case "$found" in "$work"/runs/*) grep -lsF -e "$name" "$found" ;; esac
done
:
"""


class Links(Protocol):
    """Gives connections; ``core.fleet.pool.HostPool`` does."""

    def link(self, name: str) -> Link:
        """Return an open connection to a host; EnvironmentProblem when there can be none."""
        ...


def install(
    pool: Links,
    record: HostRecord,
    choice: RuntimeRecord,
    watcher: Watcher,
    wheels_from_here: bool | None = None,
) -> HostRecord:
    """Make the environment that was chosen, try it out, and return the record to keep.

    Args:
        pool: The connections.
        record: The host.
        choice: ``kind`` and, for ``interpreter``, ``python``, ``prelude`` and ``wrapper``; for ``managed``,
            ``torch_backend``, ``extras`` and, where a certain interpreter shall be built on, ``python``.
        watcher: Sees progress and log; may cancel.
        wheels_from_here: Packages are downloaded here and sent; None: when the host cannot reach its package index.

    Raises:
        UserError: The choice cannot be had on this host.
        EnvironmentProblem: The host is not as needed, or the environment does not work; nothing of it is left.
        Cancelled: The user cancelled; nothing of it is left.
    """
    link = pool.link(record.name)
    watcher.report(Progress(stage="Looking at the host", done=0.0))
    facts = probe_host(link, record.work_dir)
    if not facts.is_work_dir_writable:
        raise EnvironmentProblem(
            f"{facts.work_dir} on {record.name} cannot be written to.",
            "Choose another work folder for the host, or give yourself permission there.",
        )
    cache = default_home() / "cache"
    if choice.kind == "managed":
        runtime, folder = make_managed(link, facts, choice, watcher, cache=cache, from_here=wheels_from_here)
    else:
        runtime, folder = put_beside(link, facts, choice, watcher, cache=cache)
    new = msgspec.structs.replace(record, runtime=runtime, is_slurm=record.is_slurm or bool(facts.slurm_partitions))
    is_kept = folder == folder_of(record, facts)
    try:
        watcher.report(Progress(stage="Trying it out", done=0.9))
        findings = self_test(pool, new, watcher)
        errors = [finding for finding in findings if finding.level is FindingLevel.ERROR]
        if errors:
            raise EnvironmentProblem(errors[0].what, errors[0].remedy)
    except BaseException:
        if link.is_alive() and not is_kept:
            link.remove(folder)
        raise
    _retire(link, record, facts, keep=folder)
    watcher.report(Progress(stage="Ready", done=1.0))
    return msgspec.structs.replace(new, runtime=msgspec.structs.replace(runtime, checked=time.time()))


def folder_of(record: HostRecord, facts: HostFacts) -> str:
    """Return the folder of ours that a host's environment is in; empty when it has none."""
    prefix = f"{facts.work_dir}/runtimes/"
    place = record.runtime.worker_dir if record.runtime.kind == "interpreter" else record.runtime.python
    return prefix + place.removeprefix(prefix).partition("/")[0] if place.startswith(prefix) else ""


def _is_in_use(link: Link, folder: str) -> bool:
    """Tell whether a run uses an environment, or any one where ``folder`` is that of all of them."""
    work_dir, runtimes, name = folder.rpartition("/runtimes")
    lines = (folder, work_dir, f"{runtimes}{name}")
    done = link.run(["/bin/sh", "-c", _USERS], stdin="".join(f"{line}\n" for line in lines).encode(), timeout_s=30.0)
    return bool(done.stdout.strip())


def _retire(link: Link, record: HostRecord, facts: HostFacts, *, keep: str) -> None:
    """Remove the folder that a record had until now, and earlier ones, unless a run still lives in them."""
    old = folder_of(record, facts)
    if old and old != keep and link.stat(old) is not None:
        link.write(f"{old}/{_REPLACED}", facts.hostname.encode())
    link.remove(f"{keep}/{_REPLACED}")  # it may have been in use before
    root = f"{facts.work_dir}/runtimes"
    for entry in link.listdir(root):
        folder = f"{root}/{entry.name}"
        if entry.is_dir and folder != keep and _was_of(link, folder, facts.hostname) and not _is_in_use(link, folder):
            link.remove(folder)


def _was_of(link: Link, folder: str, hostname: str) -> bool:
    """Tell whether an environment was replaced on this host: what others on the same disk had is theirs to clear."""
    try:
        return link.read(f"{folder}/{_REPLACED}").decode(errors="replace") == hostname
    except FileNotFoundError:
        return False


def repair(pool: Links, record: HostRecord, watcher: Watcher, wheels_from_here: bool | None = None) -> HostRecord:
    """Try the environment out, and make it anew where it does not work or is of another version; return the record.

    Raises as ``install`` does.
    """
    if record.runtime.kind == "none":
        raise EnvironmentProblem(f"{record.name} has no Python environment to repair.", "Install one.")
    findings = self_test(pool, record, watcher)
    if all(finding.level is FindingLevel.OK for finding in findings):
        return msgspec.structs.replace(record, runtime=msgspec.structs.replace(record.runtime, checked=time.time()))
    damaged = msgspec.structs.replace(record.runtime, worker_dir="")
    link = pool.link(record.name)
    if record.runtime.worker_dir and not _is_in_use(link, record.runtime.worker_dir):
        link.remove(record.runtime.worker_dir)
    return install(pool, record, damaged, watcher, wheels_from_here)


def remove(pool: Links, record: HostRecord, watcher: Watcher) -> HostRecord:
    """Remove everything that ``install`` put on a host; an environment of the user's own stays. Runs stay.

    Raises:
        EnvironmentProblem: A run there still uses it, or the host cannot be reached.
    """
    link = pool.link(record.name)
    watcher.report(Progress(stage="Looking at the host"))
    facts = probe_host(link, record.work_dir)
    root = f"{facts.work_dir}/runtimes"
    if link.stat(root) is not None and _is_in_use(link, root):
        raise EnvironmentProblem(
            f"A run on {record.name} still uses its Python environment.", "Stop it, or wait for its end."
        )
    watcher.report(Progress(stage="Removing the environment"))
    for name in ("runtimes", "bin", "python", "cache/uv"):
        link.remove(f"{facts.work_dir}/{name}")
    return msgspec.structs.replace(record, runtime=RuntimeRecord())


def self_test(pool: Links, record: HostRecord, watcher: Watcher) -> tuple[Finding, ...]:
    """Try a host's environment out on the host; takes seconds where torch is installed.

    Returns:
        What was found, the good too: interpreter, worker package, imports, GPUs, collectives.

    Raises:
        UserError: The host has no environment.
        EnvironmentProblem: The host cannot be reached.
    """
    link = pool.link(record.name)
    bad_lines = _prelude_problems(link, record.runtime)
    command = command_of(record.runtime, "core.fleet.self_test")
    # Both streams are wanted: what python says on stderr tells why nothing else came.
    done = link.run(command, env={"OMP_NUM_THREADS": "1"}, timeout_s=SELF_TEST_LIMIT_S)
    line = next((line for line in done.stdout.split(b"\n") if line.startswith(MARK.encode())), None)
    if line is None:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        what = f"The Python environment does not start: {said[-1][:300] if said else f'exit status {done.code}'}."
        remedy = f"Install or repair it: pilothouse hosts install {record.name}"
        return (*bad_lines, Finding(level=FindingLevel.ERROR, what=what, remedy=remedy, topic="python"))
    watcher.report(Progress(stage="Trying it out", line=line.decode(errors="replace").removeprefix(MARK)))
    tested = msgspec.json.decode(line.removeprefix(MARK.encode()), type=SelfTest)
    return (*bad_lines, *findings_of(tested, record))


def _prelude_problems(link: Link, runtime: RuntimeRecord) -> tuple[Finding, ...]:
    """Run the prelude, and name its first line that fails."""
    if not runtime.prelude:
        return ()
    # Each line is followed by a test of its own, so that the environment builds up as it does for a run.
    script = [part for number, line in enumerate(runtime.prelude) for part in (line, f"pilothouse_{number}=$?")]
    names = " ".join(f"$pilothouse_{number}" for number in range(len(runtime.prelude)))
    done = link.run(with_prelude([*script, f'set -- "$@" {names}'], ["printf", "%s\\n"]), timeout_s=_PRELUDE_LIMIT_S)
    for line, code in zip(runtime.prelude, done.stdout.split(), strict=False):
        if code != b"0":
            what = f"The line {line!r} of the prelude fails with status {code.decode(errors='replace')}."
            return (
                Finding(
                    level=FindingLevel.ERROR, what=what, remedy="Try it on the host, and correct it.", topic="prelude"
                ),
            )
    if done.code != 0:
        what = "The prelude does not run to its end."
        return (
            Finding(
                level=FindingLevel.ERROR,
                what=what,
                remedy="Write each command on a line of its own, without exit and exec.",
                topic="prelude",
            ),
        )
    return ()


def _found(level: FindingLevel, topic: str, what: str, remedy: str = "") -> Finding:
    return Finding(level=level, what=what, remedy=remedy, topic=topic)


def findings_of(tested: SelfTest, record: HostRecord) -> tuple[Finding, ...]:
    """Return a self-test's answer as findings."""
    ok, warning, error = FindingLevel.OK, FindingLevel.WARNING, FindingLevel.ERROR
    again = f"Renew it: pilothouse hosts install {record.name}"
    found = [_found(ok, "python", f"Python {tested.python} starts, with the worker package {tested.worker_version}.")]
    if tested.worker_version != worker_version():
        what = f"The worker package there is {tested.worker_version}; this Pilothouse is {worker_version()}."
        found.append(_found(warning, "worker", what, again))
    for name, reason in tested.missing.items():
        found.append(_found(error, "packages", f"{name} cannot be imported: {reason}.", again))
    for kind in tested.broken_kinds:
        what = f"A kind of run cannot be loaded there: {kind}."
        found.append(_found(warning, "packages", what, again))
    if tested.torch_problem:
        what = f"torch is there, but cannot be imported: {tested.torch_problem}."
        found.append(
            _found(error, "torch", what, "Install a build of torch that fits the host, or renew the environment.")
        )
    if tested.torch is None:
        if not tested.torch_problem:
            what = "torch is not installed there: training runs cannot be started, other runs can."
            found.append(_found(ok, "torch", what))
        return tuple(found)
    built = f"built for CUDA {tested.torch.cuda}" if tested.torch.cuda else "built for CPU"
    gpus = ", ".join(tested.torch.gpus) or "none"
    found.append(_found(ok, "torch", f"torch {tested.torch.version} ({built}) sees these GPUs: {gpus}."))
    for backend, reason in tested.torch.collectives.items():
        if reason:
            what = f"Two processes cannot work together over {backend}: {reason}."
            remedy = "Look whether the loopback interface and /dev/shm are in order there."
            found.append(_found(error if backend == "gloo" else warning, "collectives", what, remedy))
        else:
            found.append(_found(ok, "collectives", f"Two processes added a number over {backend}."))
    return tuple(found)
