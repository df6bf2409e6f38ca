"""What Slurm gave a job, seen from one of its nodes: which nodes, which of them this is, and where the run's nodes meet.

Reads the environment that Slurm sets, and asks ``scontrol`` for the names that a node list means. The names of a run's
nodes are ``node0`` to ``nodeN-1``, in Slurm's order.
"""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from core.contracts.errors import EnvironmentProblem
from core.contracts.placement import NodePlacement, Placement, Rendezvous

_FIRST_PORT = 20_000
_PORTS = 20_000
_TRIES = 50
_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The nodes that a job has now.

    Attributes:
        job_id: Slurm's own id, of this task where the job is an array.
        index: Which of the nodes this is, from 0.
        hosts: Slurm's names of the nodes.
        restarts: How often the job was put back into the queue.
    """

    job_id: str
    index: int
    hosts: tuple[str, ...]
    restarts: int = 0

    @property
    def node(self) -> str:
        """This node's name in the run."""
        return node_name(self.index)


def node_name(index: int) -> str:
    """Return the name in a run of a job's node."""
    return f"node{index}"


def own_allocation(environment: Mapping[str, str]) -> Allocation:
    """Return what this process was given.

    Raises:
        EnvironmentProblem: It was not started by ``srun``, or Slurm does not answer.
    """
    node_list = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    job_id, index = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_NODEID", "")
    if not node_list or not job_id.isdigit() or not index.isdigit():
        raise EnvironmentProblem("This program was not started by srun.", "Submit the run's job script with sbatch.")
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    return Allocation(
        job_id=job_id,
        index=int(index),
        hosts=tuple(_scontrol("show", "hostnames", node_list).split()),
        restarts=int(restarts) if restarts.isdigit() else 0,
    )


def placement_of(allocation: Allocation, template: Placement, attempt: int) -> Placement:
    """Return where the run is, as the head finds it: addresses, and ports that are free here.

    Args:
        allocation: The job's nodes; this process is on the first of them.
        template: What the launcher wrote; what it says of folders, ranks and restarts is kept.
        attempt: Number of the attempt.

    Raises:
        EnvironmentProblem: A node's address cannot be found, or no port is free.
    """
    spare = template.nodes[-1]
    known = {placed.node: placed for placed in template.nodes}
    nodes = [
        _placed(known.get(node_name(index), spare), node_name(index), host)
        for index, host in enumerate(allocation.hosts)
    ]
    port, watch_port = _free_ports(int(allocation.job_id))
    return msgspec.structs.replace(
        template,
        nodes=tuple(nodes),
        engine="slurm",
        attempt=attempt,
        rendezvous=Rendezvous(port=port, watch_port=watch_port, token=secrets.token_hex(16)),
        min_nodes=min(template.min_nodes, len(nodes)),
        job_id=allocation.job_id,
        restarts=allocation.restarts,
    )


def with_host_names(placement: Placement, hosts: Sequence[str]) -> Placement:
    """Return a placement that names each node by Slurm's own name of it: what people know, for sentences.

    The record itself names the login host, through which the nodes' files are reached.
    """
    named = zip(placement.nodes, hosts, strict=True)
    return msgspec.structs.replace(
        placement, nodes=tuple(msgspec.structs.replace(placed, host=host) for placed, host in named)
    )


def _placed(known: NodePlacement, name: str, host: str) -> NodePlacement:
    return msgspec.structs.replace(known, node=name, address=_address(host))


def _address(host: str) -> str:
    """Return the address by which the other nodes reach a node: Slurm's own where the name means nothing here."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        match = re.search(r"\bNodeAddr=(\S+)", _scontrol("show", "node", host))
    if match is None:
        raise EnvironmentProblem(f"The address of node {host!r} is not known.", "Ask the cluster's administrators.")
    return match[1]


def _free_ports(job_id: int) -> tuple[int, int]:
    """Return two neighbouring ports that are free on this node, beginning with those that the job's id stands for.

    Raises:
        EnvironmentProblem: None of many tried is free.
    """
    for step in range(_TRIES):
        port = _FIRST_PORT + (2 * job_id + 2 * step) % _PORTS
        if _are_free((port, port + 1)):
            return port, port + 1
    raise EnvironmentProblem("No port is free on the job's first node.", "Submit the run again.")


def _are_free(ports: Sequence[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


def _scontrol(*words: str) -> str:
    """Return what ``scontrol`` prints; EnvironmentProblem when it does not answer."""
    try:
        done = subprocess.run(
            ["scontrol", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentProblem(
            f"scontrol does not answer on this node: {error}.", "Ask the cluster's administrators."
        ) from error
    return done.stdout
