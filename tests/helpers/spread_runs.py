"""Run directories of runs on several hosts, as the mirror keeps them: built by hand, read by the real readers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from core.contracts.agent import NodeStanding
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import Engine, NodePlacement, Placement, Rendezvous
from core.contracts.states import RunState
from core.runlog.layout import RunLayout
from tests.helpers.builders import LogFile, build_run, series


def build_spread_run(
    home: Path,
    *,
    nodes: int = 2,
    ranks: int = 2,
    steps: int = 60,
    state: RunState = RunState.RUNNING,
    name: str = "digits on two hosts",
    created: float,
    number: int = 0,
    silent: tuple[int, ...] = (),
    engine: Engine = "direct",
    job_id: str = "",
) -> Path:
    """Write a run directory of ``nodes`` times ``ranks`` and return it.

    Args:
        silent: Numbers of nodes whose host has not answered for 20 minutes.
        state: Of the run; when it is over, the hosts said that nothing of it is left.
    """
    run_dir = build_run(
        home, name=name, kind="train.image", created=created, number=number, steps=steps, state=state, telemetry=True
    )
    _rename_to_head(run_dir)
    placed = tuple(
        NodePlacement(
            node=f"node{n}",
            host=f"lab-{n}",
            address=f"10.0.0.{n + 2}",
            devices=tuple(range(ranks)),
            processes=ranks,
            work_dir="/home/ann/.pilothouse",
            run_dir=f"/home/ann/.pilothouse/runs/{run_dir.name}",
            python="/usr/bin/python3",
        )
        for n in range(nodes)
    )
    placement = Placement(
        nodes=placed,
        engine=engine,
        rendezvous=Rendezvous(port=41000, watch_port=41001, token="x"),
        min_nodes=nodes,
        job_id=job_id,
    )
    layout = RunLayout(run_dir)
    layout.placement.write_bytes(msgspec.json.encode(placement))
    for n in range(nodes):
        _write_node(layout, n, ranks, steps, created, state, is_silent=n in silent)
    return run_dir


def _rename_to_head(run_dir: Path) -> None:
    for path in list(run_dir.glob("*.local.*")):
        path.rename(path.with_name(path.name.replace(".local.worker.", ".node0.0.").replace(".local.", ".node0.")))


def _write_node(
    layout: RunLayout, n: int, ranks: int, steps: int, created: float, state: RunState, *, is_silent: bool
) -> None:
    node, start = f"node{n}", created + 2.0
    for local in range(ranks):
        rank = n * ranks + local
        if rank:
            late = 0.4 if rank == ranks * 2 - 1 else 0.0
            log = LogFile(layout.events(rank, node), start + late)
            log.metrics({"train/loss": series("loss", steps - 4 * bool(late), rank)}, step_time_s=0.05)
    if n:
        supervisor = LogFile(layout.events("supervisor", node), created)
        supervisor.write("node", created + 1.0, node=node, state=state.value, message="", hint="")
        rng = np.random.default_rng(n)
        telemetry = LogFile(layout.telemetry(node), start)
        for second in range(0, max(int(steps * 0.05), 4), 2):
            values = {
                "cpu.percent": float(40 + 20 * rng.random()),
                "gpu.0.utilization_percent": float(90 * rng.random()),
            }
            telemetry.write("sample", start + second, values=values)
        lines = [f"[rank{n * ranks + local}]: step {step}" for step in range(0, steps, 20) for local in range(ranks)]
        layout.stdout(node).write_text("\n".join([f"{node} starts", *lines, ""]), encoding="utf-8")
    size = layout.stdout(node).stat().st_size
    layout.stdout_index(node).write_text(f"{created + 3 + n} {size}\n", encoding="utf-8")
    standing = NodeStanding(node=node, state=state, attempt=1, pids=() if state.is_terminal else (100 + n,))
    record = LinkRecord(
        last_contact=created + 10,
        is_reachable=not is_silent,
        message="The host does not answer." if is_silent else "",
        stdout_bytes=size,
        is_complete=state.is_terminal,
        standing=standing,
    )
    layout.link(node).write_bytes(msgspec.json.encode(record))
