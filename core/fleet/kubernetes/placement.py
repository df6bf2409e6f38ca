"""The placement of a run whose nodes are pods: known before they exist, because their names are.

The same record is here in the mirror and, from the ConfigMap, in each pod, which adds its own interpreter.
"""

from __future__ import annotations

import secrets

from core.contracts.placement import CopiedPath, NodePlacement, Placement, Rendezvous
from core.contracts.specs import RunSpec
from core.fleet.kubernetes.names import hostname, node_of, object_name
from core.plugins.registry import registry

RENDEZVOUS_PORT = 29500
WATCH_PORT = 29501
"""Each pod has a network of its own, so that these are always free."""


def run_folder(mount_path: str, run_id: str) -> str:
    """Return the run directory in a pod."""
    return f"{mount_path.rstrip('/')}/runs/{run_id}"


def pod_placement(spec: RunSpec, run_id: str, *, attempt: int = 1, code_folder: str = "") -> Placement:
    """Return where the ranks of a run will be.

    Args:
        spec: What to run; its ``launch.kubernetes`` says on how many pods.
        run_id: The run.
        attempt: 1 on the first start.
        code_folder: Folder of this machine that is put into the pods as the run's code; empty for none.
    """
    asked = spec.launch.kubernetes
    name = object_name(run_id)
    processes = registry().get(str(spec.__struct_config__.tag)).ranks(spec)
    nodes = tuple(
        NodePlacement(
            node=node_of(index),
            host=f"pod-{index}",
            address=hostname(asked.form, name, index),
            devices=tuple(range(asked.gpus_per_node)),
            processes=processes,
            work_dir=asked.mount_path.rstrip("/"),
            run_dir=run_folder(asked.mount_path, run_id),
        )
        for index in range(asked.nodes)
    )
    return Placement(
        nodes=nodes,
        engine="kubernetes",
        attempt=attempt,
        rendezvous=Rendezvous(port=RENDEZVOUS_PORT, watch_port=WATCH_PORT, token=secrets.token_hex(16)),
        copies=(CopiedPath(here=code_folder, there=f"runs/{run_id}/code"),) if code_folder else (),
        min_nodes=spec.launch.min_nodes or asked.nodes,
        max_restarts=spec.launch.max_restarts,
        job_id=name,
    )
