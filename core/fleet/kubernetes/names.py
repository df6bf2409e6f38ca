"""Names and labels of a run's objects in a cluster: all valid by DNS-1123 and short enough for hostnames of pods.

Every object of a run carries the label ``pilothouse.run``; by it they are found and deleted. A pod's hostname is its
object's name with an index behind it and must stay within 63 characters for a JobSet's pods too.
"""

from __future__ import annotations

import hashlib
import re

from core.contracts.ids import is_run_id

RUN_LABEL = "pilothouse.run"
MANAGER = "pilothouse"
CONTAINER = "node"
"""Name of the container of a run in each pod; Kubeflow's runtimes ask for this very name."""
REPLICATED_JOB = "node"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
_MOST_CHARACTERS = 44


def object_name(run_id: str) -> str:
    """Return the name of a run's objects, such as ``ph-20261124-061203-digits-3f9a1c``."""
    if not is_run_id(run_id):
        plain = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")[:24].strip("-")
        return f"ph-{plain}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}".replace("--", "-")
    time, slug, end = run_id[:15], run_id[16:-7], run_id[-6:]
    room = _MOST_CHARACTERS - len("ph-") - len(time) - len(end) - 2
    return f"ph-{time}-{slug[:room].strip('-')}-{end}"


def label_value(run_id: str) -> str:
    """Return the value of the run's label; the id itself for every id that Pilothouse makes."""
    return run_id if is_run_id(run_id) else object_name(run_id)


def selector(run_id: str) -> str:
    """Return the label selector of a run's objects."""
    return f"{RUN_LABEL}={label_value(run_id)}"


def node_of(index: int) -> str:
    """Return the name in the run directory of the pod with a completion index."""
    return f"node{index}"


def index_of(node: str) -> int:
    """Return the completion index of a node's pod."""
    return int(node.removeprefix("node"))


def hostname(form: str, name: str, index: int) -> str:
    """Return the DNS name by which the other pods reach one, within the namespace."""
    return f"{name}-{index}.{name}" if form == "job" else f"{name}-{REPLICATED_JOB}-0-{index}.{name}"
