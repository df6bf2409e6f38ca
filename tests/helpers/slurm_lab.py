"""A real Slurm of one's own for tests: munged, slurmctld and several slurmd on this machine, all below one folder.

Every node is a ``slurmd -N`` in a PID namespace of its own, so that it has the process tree of a machine of its own:
killing it kills whatever ran there, freezing it freezes that, and no pid means the same on two nodes. Network and files
are shared. Ports are free ones, sockets lie in the folder: several labs may run at once. Everything dies with the test
process, however that ends. Needs root and Debian's packages; ``why_no_slurm`` says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_for

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun", "unshare", "setpriv")
_DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")
START_LIMIT_S = 60.0
NODE_LOST_S = 10
"""Slurm takes a silent node for down after this many seconds here (300 by default)."""
CREDENTIAL_S = 10
"""How long a started job's credential is good; a requeued job waits for its end before it is started (120 by default)."""

_CONF = """\
ClusterName=lab
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={control_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/sock,cred_expire={credential_s}
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
PriorityType=priority/basic
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdTimeout={node_lost_s}
InactiveLimit=0
KillWait=5
MinJobAge={min_job_age_s}
FirstJobId={first_job_id}
JobRequeue=1
CommunicationParameters=NoAddrCache
AccountingStorageType=accounting_storage/none
{completions}
{nodes}
PartitionName=lab Nodes=ALL Default=YES MaxTime=60 DefMemPerNode=100 State=UP
PartitionName=small Nodes=n1 MaxTime=5 DefMemPerNode=100 State=UP
PartitionName=closed Nodes=ALL MaxTime=60 DefMemPerNode=100 State=DOWN
"""


def why_no_slurm() -> str:
    """Return why no Slurm can be started here; empty when it can."""
    if os.geteuid() != 0:
        return "a private Slurm needs root (PID namespaces)"
    missing = [name for name in _PROGRAMS if _program(name) is None]
    return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge util-linux)" if missing else ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]


class SlurmLab:
    """A running Slurm; ``start`` makes one, ``close`` leaves nothing of it."""

    def __init__(self, base: Path, nodes: int, *, keeps_completions: bool, min_job_age_s: int) -> None:
        """Write the configuration.

        Args:
            base: Its folder.
            nodes: How many nodes, ``n1`` to ``nN``, of two processors each.
            keeps_completions: Ended jobs are kept in a file that ``sacct -c`` reads.
            min_job_age_s: How long the controller itself remembers them.
        """
        self.base = base
        self.conf = base / "slurm.conf"
        self.nodes = tuple(f"n{number}" for number in range(1, nodes + 1))
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._slurmd: dict[str, subprocess.Popen[bytes]] = {}
        for folder in ("munge", "state", "spool", "log"):
            (base / folder).mkdir(parents=True)
        (base / "munge/key").write_bytes(os.urandom(1024))
        (base / "munge/key").chmod(0o400)
        control_port, *ports = _free_ports(nodes + 1)
        line = "NodeName={} NodeHostname=localhost NodeAddr=127.0.0.1 Port={} CPUs=2 RealMemory=2000 Feature=lab State=UNKNOWN"
        completions = f"JobCompType=jobcomp/filetxt\nJobCompLoc={base}/log/completed" if keeps_completions else ""
        self.conf.write_text(
            _CONF.format(
                base=base,
                control_port=control_port,
                node_lost_s=NODE_LOST_S,
                credential_s=CREDENTIAL_S,
                min_job_age_s=min_job_age_s,
                first_job_id=secrets.randbelow(9_000) + 1,  # ports follow from it: labs at once must not meet
                completions=completions,
                nodes="\n".join(line.format(name, port) for name, port in zip(self.nodes, ports, strict=True)),
            )
        )

    @property
    def env(self) -> dict[str, str]:
        """What Slurm's commands need to find it."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Start everything and wait until all nodes are idle."""
        munge = self.base / "munge"
        files = (f"--{what}-file={munge / what}" for what in ("key", "pid", "log", "seed"))
        self._daemons.append(self._spawn("munged", "--foreground", "--force", f"--socket={munge / 'sock'}", *files))
        wait_for((munge / "sock").exists, "munged", START_LIMIT_S)
        self._daemons.append(self._spawn("slurmctld", "-D", "-c", "-f", str(self.conf)))
        wait_for(lambda: self.ask("scontrol", "ping").find("is UP") >= 0, "slurmctld", START_LIMIT_S)
        for node in self.nodes:
            self.start_node(node)
        self.wait_idle()

    def wait_idle(self, limit_s: float = START_LIMIT_S) -> None:
        """Wait until all nodes are free."""
        wait_for(
            lambda: (
                len(self.ask("sinfo", "-h", "-N", "-p", "lab", "-t", "idle", "-o", "%N").split()) == len(self.nodes)
            ),
            "all nodes to be idle",
            limit_s,
        )

    def ask(self, *words: str) -> str:
        """Run one of Slurm's commands; return what it printed, or an empty text when it failed."""
        done = subprocess.run(words, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    def start_node(self, node: str) -> None:
        """Start a node, or bring a killed one back."""
        slurmd = f'exec {_program("slurmd")} -D -N {node} -f "$0"'
        # A shell is the first process of the node, as init is of a machine: it reaps what is left behind.
        command = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", f"({slurmd}) & wait")
        self._slurmd[node] = self._spawn(*command, str(self.conf), log=node)

    def kill_node(self, node: str) -> None:
        """End a node with all that runs there, as a cut of its power would."""
        self._end(self._slurmd.pop(node))

    def freeze_node(self, node: str) -> None:
        """Stop every process of a node: it answers nothing, but its connections stay."""
        for pid in self.processes(node):
            os.kill(pid, signal.SIGSTOP)

    def resume_node(self, node: str) -> None:
        """Let a frozen node go on."""
        for pid in self.processes(node):
            os.kill(pid, signal.SIGCONT)

    def processes(self, node: str) -> set[int]:
        """Return the pids of all processes of a node, as seen from outside."""
        outer = self._slurmd.get(node)
        inner = _children(outer.pid) if outer is not None else []
        if not inner:
            return set()
        space = _space(Path(f"/proc/{inner[0]}"))
        return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _space(entry) == space}

    def wait_quiet(self, limit_s: float = START_LIMIT_S) -> None:
        """Wait until all nodes are free and nothing of any job is left on them."""
        self.wait_idle(limit_s)
        wait_for(lambda: not any(map(self._has_steps, self.nodes)), "the nodes to have ended all steps", limit_s)

    def _has_steps(self, node: str) -> bool:
        return any(b"slurmstepd" in _command(pid) for pid in self.processes(node))

    def close(self) -> None:
        """End everything at once and forget the jobs."""
        for process in [*self._slurmd.values(), *reversed(self._daemons)]:
            self._end(process)

    def forget_jobs(self) -> None:
        """Cancel every job and wait until the nodes are free again."""
        for node in self.nodes:
            if node not in self._slurmd:
                self.start_node(node)
        self.ask("scancel", "--user", "root")
        wait_for(lambda: not self.ask("squeue", "-h", "-o", "%i").split(), "no job", START_LIMIT_S)
        self.wait_idle()

    def _spawn(self, program: str, *words: str, log: str = "") -> subprocess.Popen[bytes]:
        found = _program(program)
        assert found is not None
        with (self.base / "log" / f"{log or program}.log").open("ab") as file:
            return subprocess.Popen(
                [*_DIE_WITH_US, found, *words], stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=self.base
            )

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()


def _children(pid: int) -> Sequence[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _space(entry: Path) -> str:
    """Return the PID namespace of a process."""
    try:
        return str((entry / "ns/pid").readlink())
    except OSError:
        return ""


@contextlib.contextmanager
def running_slurm(
    base: Path, nodes: int = 2, *, keeps_completions: bool = True, min_job_age_s: int = 600
) -> Generator[SlurmLab]:
    """Yield a running Slurm below a folder; skips the test when none can be started, and says why."""
    if reason := why_no_slurm():
        pytest.skip(reason)
    lab = SlurmLab(base, nodes, keeps_completions=keeps_completions, min_job_age_s=min_job_age_s)
    try:
        lab.start()
        yield lab
    finally:
        lab.close()
