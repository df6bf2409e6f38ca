"""Several nodes of one run on this machine: a run directory each, real supervisors, and what the tests ask of them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.contracts.events import AnyEvent, MetricEvent
from core.contracts.ids import RunId, new_run_id
from core.contracts.placement import NodePlacement, Placement, Rendezvous
from core.contracts.specs import RunSpec
from core.jobs.processes import marked_processes
from core.jobs.reconcile import Standing, examine
from core.jobs.records import SupervisorRecord, read_record, write_record
from core.jobs.starting import last_attempt, prepare_attempt, start_supervisor
from core.plugins.decode import encode_spec
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from tests.helpers.waiting import wait_for


def free_ports(count: int) -> list[int]:
    """Return TCP ports that were free a moment ago."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@dataclass
class NodeLab:
    """One run on nodes ``a`` (the head), ``b``, ...; hosts are called ``host-a``, ``host-b``, ..."""

    folder: Path
    placement: Placement
    run_id: RunId
    spec: RunSpec
    started: list[str] = field(default_factory=list[str])

    def run_dir(self, node: str) -> Path:
        return Path(self.placement.of(node).run_dir)

    def layout(self, node: str) -> RunLayout:
        return RunLayout(self.run_dir(node))

    def prepare(self) -> None:
        for placed in self.placement.nodes:
            layout = self.layout(placed.node)
            layout.control.mkdir(parents=True)
            layout.spec.write_text(encode_spec(self.spec), encoding="utf-8")
            write_record(layout.placement, self.placement)

    def start(self, *nodes: str) -> None:
        for node in nodes or tuple(placed.node for placed in self.placement.nodes):
            start_supervisor(self.run_dir(node), last_attempt(self.run_dir(node), node) + 1, node=node)
            self.started.append(node)

    def resume(self) -> None:
        """Start all nodes once more, on new ports."""
        ports = free_ports(2)
        rendezvous = Rendezvous(port=ports[0], watch_port=ports[1], token="another secret")
        attempt = max(last_attempt(self.run_dir(placed.node), placed.node) for placed in self.placement.nodes) + 1
        self.placement = msgspec.structs.replace(self.placement, rendezvous=rendezvous, attempt=attempt)
        for placed in self.placement.nodes:
            prepare_attempt(self.run_dir(placed.node), placed.node)
            write_record(self.layout(placed.node).placement, self.placement)
            start_supervisor(self.run_dir(placed.node), attempt, node=placed.node)

    def request_stop(self, node: str) -> None:
        self.layout(node).stop_request.touch()

    def standing(self, node: str) -> Standing:
        return examine(self.run_dir(node), node)

    def ended(self, node: str, limit_s: float = 60.0) -> Standing:
        def standing() -> Standing | None:
            now = self.standing(node)
            return now if now.state is not None and now.state.is_terminal else None

        return wait_for(standing, f"node {node} to end", limit_s)

    def supervisor(self, node: str) -> SupervisorRecord:
        def record() -> SupervisorRecord | None:
            found = read_record(self.layout(node).supervisor(node), SupervisorRecord)
            return found if found is not None and found.worker is not None else None

        return wait_for(record, f"the worker of {node} to start")

    def supervisor_pid(self, node: str) -> int:
        found = read_record(self.layout(node).supervisor(node), SupervisorRecord)
        assert found is not None
        return found.identity.pid

    def pids(self, node: str = "") -> set[int]:
        return marked_processes(self.run_id, node)

    def no_process_left(self) -> None:
        wait_for(lambda: not self.pids(), "no process of the run on any node", 20)

    def events(self, node: str) -> list[AnyEvent]:
        batch = read_batch(self.run_dir(node), {}, 64 << 20)
        return [event for file in batch.files for event in file.events]

    def curve(self, node: str, key: str) -> list[tuple[int, float]]:
        found = [event for event in self.events(node) if isinstance(event, MetricEvent) and key in event.values]
        return [(event.step, float(event.values[key])) for event in found]

    def at_step(self, node: str, step: int, limit_s: float = 60.0) -> None:
        def is_there() -> bool:
            return any(isinstance(event, MetricEvent) and event.step >= step for event in self.events(node))

        wait_for(is_there, f"step {step} on {node}", limit_s)

    def output(self, node: str) -> str:
        path = self.layout(node).stdout(node)
        return path.read_text(errors="replace") if path.exists() else ""


def placement_for(
    folder: Path, run_id: str, nodes: str, *, processes: int = 1, min_nodes: int | None = None, max_restarts: int = 0
) -> Placement:
    """Return a placement of nodes ``a``, ``b``, ... on the loopback, each with a home of its own."""
    ports = free_ports(2)
    placed = tuple(
        NodePlacement(
            node=node,
            host=f"host-{node}",
            interface="lo",
            processes=processes,
            work_dir=str(folder / node),
            run_dir=str(folder / node / "runs" / run_id),
        )
        for node in nodes
    )
    return Placement(
        nodes=placed,
        rendezvous=Rendezvous(port=ports[0], watch_port=ports[1], token="a secret"),
        min_nodes=len(placed) if min_nodes is None else min_nodes,
        max_restarts=max_restarts,
    )


@contextmanager
def opened_nodes(folder: Path, spec: RunSpec, nodes: str = "ab", **placement: int) -> Generator[NodeLab]:
    """Yield a prepared run on several nodes; whatever it left alive is killed at the end."""
    run_id = new_run_id("nodes")
    lab = NodeLab(folder, placement_for(folder, run_id, nodes, **placement), run_id, spec)
    lab.prepare()
    try:
        yield lab
    finally:
        for pid in lab.pids():
            os.kill(pid, signal.SIGKILL)
