"""Where the processes of a run are: written once at launch as ``placement.json``, the same on every node and here.

A run without the file is on this machine alone, as node ``local``. A node's name is safe in file names and is part of
the names in the run directory (``events.<node>.<rank>.jsonl``); the first node is the *head*: it holds the rendezvous,
its supervisor writes the run's states, and rank 0 is on it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

LOCAL_NODE = "local"

Engine = Literal["direct", "slurm", "kubernetes"]


class NodePlacement(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a run.

    Attributes:
        node: Its name in the run directory: letters, digits, ``-`` and ``_``; unique in the run.
        host: Name of the host in the hosts file; empty for this machine.
        address: Address by which the other nodes reach it.
        interface: Its network interface for that address, for ``NCCL_SOCKET_IFNAME`` and ``GLOO_SOCKET_IFNAME``;
            empty leaves it to the libraries.
        devices: Indices of its GPUs for the run; empty for CPU only.
        processes: Ranks to start on it.
        work_dir: The folder on that host for runs, copies and the queue, absolute: the host's own Pilothouse home.
        run_dir: The run directory on that host, absolute: ``<work_dir>/runs/<run id>``, except on this machine.
        python: The interpreter that has the worker package, absolute.
    """

    node: str
    host: str = ""
    address: str = "127.0.0.1"
    interface: str = ""
    devices: tuple[int, ...] = ()
    processes: int = 1
    work_dir: str = ""
    run_dir: str = ""
    python: str = ""


class CopiedPath(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder of the launching machine that was copied to every node.

    Attributes:
        here: Its absolute path on the launching machine; a spec's paths that are it, or below it, are moved.
        there: Its path relative to a node's ``work_dir``, such as ``runs/<run id>/code`` or ``data/<digest>``.
    """

    here: str
    there: str


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """Where the nodes of a run meet, on the head's address.

    Attributes:
        port: TCP port for torch's rendezvous, free on the head when it was chosen.
        watch_port: TCP port on which the head's supervisor listens to the others.
        token: Random text that members of the run know; keeps strangers out of the watch port.
    """

    port: int
    watch_port: int
    token: str


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes of a run, the head first.

    Attributes:
        attempt: The attempt that it holds for.
        copies: What was copied to the nodes; paths outside of them are used as they are.
        min_nodes: Fewest nodes to go on with; equal to their number when the run is not elastic.
        max_restarts: How often torchrun restarts all ranks after one failed.
        job_id: The cluster's own id of the job (Slurm), or the object's name (Kubernetes).
        restarts: How often Slurm had put the job back into the queue when this was written.
    """

    nodes: tuple[NodePlacement, ...]
    engine: Engine = "direct"
    attempt: int = 1
    rendezvous: Rendezvous | None = None
    copies: tuple[CopiedPath, ...] = ()
    min_nodes: int = 1
    max_restarts: int = 0
    job_id: str = ""
    restarts: int = 0

    @property
    def head(self) -> NodePlacement:
        """The node with rank 0."""
        return self.nodes[0]

    def of(self, node: str) -> NodePlacement:
        """Return the node of a name; KeyError when there is none."""
        for placed in self.nodes:
            if placed.node == node:
                return placed
        raise KeyError(node)

    @property
    def is_elastic(self) -> bool:
        """True when the run may go on with fewer nodes."""
        return self.min_nodes < len(self.nodes)
