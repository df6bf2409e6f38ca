"""From a spec and its hosts to a placement: node names, devices, and how the nodes reach each other, found and not guessed.

The address by which the others reach the head is one that each of them has really connected to, and their own
addresses are those that the connections came from. What a host is asked goes through ``PlannedHost``.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import HostGpu, HostRecord
from core.contracts.placement import LOCAL_NODE, CopiedPath, NodePlacement, Placement, Rendezvous
from core.contracts.specs import RunSpec
from core.fleet.device_choice import choose, named_hosts, wish_for
from core.plugins.registry import registry

_BRIDGES = re.compile(r"(docker|br-|virbr|veth|cni|flannel|cali|tun|tap|podman)")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Reached:
    """How an attempt to connect ended: from which own address, or why it did not."""

    own_address: str = ""
    problem: str = ""


class PlannedHost(Protocol):
    """What planning asks of one host. Blocks; EnvironmentProblem when the host does not answer."""

    @property
    def record(self) -> HostRecord:
        """What the user said of it."""
        ...

    @property
    def work_dir(self) -> str:
        """Its work folder, absolute."""
        ...

    @property
    def python(self) -> str:
        """The interpreter that has our package there."""
        ...

    def gpus(self) -> tuple[HostGpu, ...]:
        """Return its accelerators and who holds them."""
        ...

    def interfaces(self) -> tuple[tuple[str, str], ...]:
        """Return names and addresses of its network interfaces that are up."""
        ...

    def free_ports(self, count: int) -> tuple[int, ...]:
        """Return TCP ports that nobody listens on."""
        ...

    def listen(self, port: int, token: str) -> None:
        """Answer connections to a port that bring the token, until ``end_listen``."""
        ...

    def end_listen(self, token: str) -> None:
        """Stop answering."""
        ...

    def connect(self, address: str, port: int, token: str) -> Reached:
        """Try to reach a host that listens."""
        ...


def node_names(hosts: Sequence[str], taken: Mapping[str, tuple[str, bool]]) -> tuple[str, ...]:
    """Return a name for the node on each host, the head first: safe in file names, and unique in the run.

    Args:
        hosts: Names of the hosts.
        taken: Names of earlier attempts, with their host and whether they were the head. A name keeps both, so a host
            that changes its role gets a new name.
    """
    names: list[str] = []
    for number, host in enumerate(hosts):
        base = LOCAL_NODE if host == LOCAL_NODE else _NOT_IN_A_NAME.sub("-", host)
        candidates = [base, *(f"{base}-{count}" for count in range(2, len(taken) + len(hosts) + 2))]
        role = (host, number == 0)
        names.append(next(name for name in candidates if name not in names and taken.get(name, role) == role))
    return tuple(names)


def check_hosts_of(spec: RunSpec) -> None:
    """Look whether a spec may run on its hosts at all.

    Raises:
        UserError: Several hosts for a kind that spans none, a host named twice, or devices of a host that is not used.
    """
    launch = spec.launch
    kind = registry().get(str(spec.__struct_config__.tag))
    if len(launch.hosts) > 1 and not kind.spans_nodes:
        raise UserError(
            f"{kind.title} runs on one host, not on {len(launch.hosts)}.",
            "Choose one host, or a training script with torchrun.",
        )
    if len(set(launch.hosts)) < len(launch.hosts):
        raise UserError("A host is named twice.", "Name each host once.")
    strangers = [name for name in named_hosts(launch.devices) if name not in launch.hosts]
    if strangers:
        raise UserError(f"Devices are chosen on {strangers[0]!r}, which is no host of the run.", "Correct the devices.")


def plan(
    spec: RunSpec,
    run_id: str,
    hosts: Sequence[PlannedHost],
    *,
    copies: tuple[CopiedPath, ...] = (),
    attempt: int = 1,
    taken: Mapping[str, tuple[str, bool]] | None = None,
) -> Placement:
    """Return where each rank of a run goes.

    Args:
        spec: What to run.
        run_id: The run.
        hosts: Where, the head first.
        copies: What is copied there.
        attempt: Number of the start.
        taken: Node names of earlier attempts; see ``node_names``.

    Raises:
        UserError: Devices are busy or not there.
        EnvironmentProblem: A host does not answer, or the hosts cannot reach each other.
    """
    check_hosts_of(spec)
    with ThreadPoolExecutor(len(hosts), thread_name_prefix="plan") as pool:
        devices = list(pool.map(lambda host: _devices(spec, host), hosts))
        rendezvous, places = _meet(hosts, pool)
    kind = registry().get(str(spec.__struct_config__.tag))
    names = node_names([host.record.name for host in hosts], taken or {})
    nodes = tuple(
        NodePlacement(
            node=name,
            host="" if host.record.name == LOCAL_NODE else host.record.name,
            address=address,
            interface=host.record.interface or interface,
            devices=chosen,
            processes=kind.ranks(spec),
            work_dir=host.work_dir,
            run_dir=f"{host.work_dir}/runs/{run_id}",
            python=host.python,
        )
        for name, host, chosen, (address, interface) in zip(names, hosts, devices, places, strict=True)
    )
    return Placement(
        nodes=nodes,
        attempt=attempt,
        rendezvous=rendezvous,
        copies=copies,
        min_nodes=min(spec.launch.min_nodes or len(nodes), len(nodes)),
        max_restarts=spec.launch.max_restarts,
    )


def _devices(spec: RunSpec, host: PlannedHost) -> tuple[int, ...]:
    wish = wish_for(spec.launch.devices, host.record.name)
    if wish == "cpu" or (wish == "auto" and getattr(spec, "device", "auto") == "cpu"):
        return ()
    processes = registry().get(str(spec.__struct_config__.tag)).ranks(spec)
    return choose(host.record.name, wish, host.gpus(), processes, may_wait=spec.launch.queue)


_Place = tuple[str, str]
"""Address by which a node is reached, and the interface that has it (empty when that is not known)."""


def _meet(hosts: Sequence[PlannedHost], pool: ThreadPoolExecutor) -> tuple[Rendezvous | None, list[_Place]]:
    """Find ports on the head and how all the others reach it; one host alone meets nobody."""
    head, others = hosts[0], hosts[1:]
    if not others:
        return None, [("127.0.0.1", "")]
    port, watch_port = head.free_ports(2)
    token = secrets.token_hex(16)
    rendezvous = Rendezvous(port=port, watch_port=watch_port, token=token)
    interfaces = head.interfaces()
    candidates = address_candidates(head.record, interfaces, [host.interfaces() for host in others])
    head.listen(watch_port, token)
    try:
        address, reached = _agreed(head, others, candidates, (watch_port, token), pool)
    finally:
        head.end_listen(token)
    places = [(address, _interface_of(interfaces, address))]
    for host, found in zip(others, reached, strict=True):
        own = host.record.peer_address or found.own_address
        places.append((own, _interface_of(host.interfaces(), found.own_address)))
    return rendezvous, places


def _agreed(
    head: PlannedHost,
    others: Sequence[PlannedHost],
    candidates: Sequence[str],
    port: tuple[int, str],
    pool: ThreadPoolExecutor,
) -> tuple[str, list[Reached]]:
    """Return the first address of the head that all others have connected to, and how."""
    best: tuple[int, str, list[Reached]] | None = None
    for address in candidates:
        reached = list(pool.map(lambda host, to=address: host.connect(to, *port), others))
        failed = sum(1 for found in reached if found.problem)
        if not failed:
            return address, reached
        if best is None or failed < best[0]:
            best = (failed, address, reached)
    head_name = head.record.name
    if best is None:
        raise EnvironmentProblem(
            f"{head_name} has no network address by which other hosts could reach it.",
            f"Give one as the address for other hosts (peer_address) of {head_name}.",
        )
    failures = [(host.record.name, found.problem) for host, found in zip(others, best[2], strict=True) if found.problem]
    raise EnvironmentProblem(
        f"{', '.join(name for name, _ in failures)} cannot reach {head_name} ({', '.join(candidates)}): {failures[0][1]}",
        f"Open the ports between the hosts, or give {head_name} the address for other hosts (peer_address) that they can reach.",
    )


def address_candidates(
    head: HostRecord, interfaces: Sequence[tuple[str, str]], others: Sequence[Sequence[tuple[str, str]]]
) -> list[str]:
    """Return the head's addresses, the likeliest first: those close to all others' addresses, bridges last."""
    if head.peer_address:
        return [head.peer_address]
    usable = [(name, address) for name, address in interfaces if _is_usable(address)]
    if head.interface:
        usable = [pair for pair in usable if pair[0] == head.interface] or usable

    def closeness(pair: tuple[str, str]) -> tuple[bool, bool, int]:
        name, address = pair
        shared = [max((_shared_bits(address, other) for _, other in known), default=0) for known in others]
        return bool(_BRIDGES.match(name)), ":" in address, -min(shared, default=0)

    return list(dict.fromkeys(address for _, address in sorted(usable, key=closeness)))


def _is_usable(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def _shared_bits(one: str, other: str) -> int:
    """Return how many leading bits two addresses share; all but equal ones: a bridge has the same address everywhere."""
    try:
        a, b = ipaddress.ip_address(one), ipaddress.ip_address(other)
    except ValueError:
        return 0
    if a.version != b.version or a == b:
        return 0
    return a.max_prefixlen - (int(a) ^ int(b)).bit_length()


def _interface_of(interfaces: Sequence[tuple[str, str]], address: str) -> str:
    return next((name for name, known in interfaces if known == address), "")


def plan_text(placement: Placement) -> str:
    """Return a placement as lines for people: what ``--dry-run`` prints for hosts."""
    lines: list[str] = []
    for number, node in enumerate(placement.nodes):
        devices = (
            f"GPU {', '.join(map(str, node.devices))}" if node.devices else "the processor, or what its queue gives"
        )
        role = "head, " if number == 0 and len(placement.nodes) > 1 else ""
        place = f"{node.address} ({node.interface})" if node.interface else node.address
        lines.append(f"{node.host or 'this machine'}: {role}{node.processes} x {devices}, reached at {place}")
        lines.append(f"  in {node.run_dir} with {node.python}")
    if placement.rendezvous is not None and len(placement.nodes) > 1:
        lines.append(f"They meet at {placement.head.address}:{placement.rendezvous.port}.")
    return "\n".join(lines)
