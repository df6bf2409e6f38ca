"""Where a run goes, as far as a form's values tell: this computer, hosts by SSH, a Slurm cluster, Kubernetes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum

from core.contracts.forms import FormValue
from core.contracts.hosts import LOCAL_HOST

HOSTS_PATH = "launch.hosts"
CLUSTER_PATH = "launch.slurm.cluster"
CONTEXT_PATH = "launch.kubernetes.context"

_LOCAL_PATHS = ("launch.devices", "launch.queue", "launch.retries")
_HOST_PATHS = (
    "launch.devices",
    "launch.queue",
    "launch.copy_code",
    "launch.copy_data",
    "launch.exclude",
    "launch.min_nodes",
    "launch.max_restarts",
    "launch.retries",
    "launch.peer_limit_s",
)
_PLAIN_PATHS = frozenset(
    {
        "launch.devices",
        "launch.queue",
        "launch.copy_code",
        "launch.copy_data",
        "launch.slurm.nodes",
        "launch.slurm.partition",
        "launch.slurm.time_limit",
        "launch.slurm.gres",
        "launch.kubernetes.nodes",
        "launch.kubernetes.namespace",
        "launch.kubernetes.image",
        "launch.kubernetes.gpus_per_node",
        "launch.kubernetes.volume_claim",
    }
)


class Where(StrEnum):
    """Kinds of places."""

    LOCAL = "local"
    HOSTS = "hosts"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


_TARGET_PATHS = {Where.HOSTS: HOSTS_PATH, Where.SLURM: CLUSTER_PATH, Where.KUBERNETES: CONTEXT_PATH}


def where_of(values: Mapping[str, FormValue]) -> Where:
    """Return where the values send the run."""
    return next((where for where, path in _TARGET_PATHS.items() if values.get(path)), Where.LOCAL)


def target_path(where: Where) -> str:
    """Return the field that names the place; empty for this computer."""
    return _TARGET_PATHS.get(where, "")


def is_where_path(path: str) -> bool:
    """Tell whether a field belongs to the question of where, not of what."""
    return path in _HOST_PATHS or path == HOSTS_PATH or path.startswith(("launch.slurm.", "launch.kubernetes."))


def is_plain(path: str) -> bool:
    """Tell whether a field of where is shown without being asked for."""
    return path in _PLAIN_PATHS


def fields_of(where: Where, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of a form's paths that matter for a place, the one that names it left out."""
    if where is Where.LOCAL:
        return tuple(path for path in paths if path in _LOCAL_PATHS)
    if where is Where.HOSTS:
        return tuple(path for path in paths if path in _HOST_PATHS)
    prefix = f"launch.{where.value}."
    shared = ("launch.copy_code", "launch.copy_data", "launch.exclude", "launch.max_restarts")
    shared = shared if where is Where.SLURM else ("launch.max_restarts",)
    own = [path for path in paths if path.startswith(prefix) and path != target_path(where)]
    return (*own, *(path for path in paths if path in shared))


def hosts_to_check(values: Mapping[str, FormValue]) -> tuple[str, ...]:
    """Return the hosts that a launch with these values needs, to be looked at before it."""
    where = where_of(values)
    if where is Where.HOSTS:
        return host_names(values)
    cluster = str(values.get(CLUSTER_PATH) or "")
    return (cluster,) if where is Where.SLURM and cluster != LOCAL_HOST else ()


def host_names(values: Mapping[str, FormValue]) -> tuple[str, ...]:
    """Return the chosen hosts, the head first."""
    found = values.get(HOSTS_PATH)
    return tuple(found) if isinstance(found, list) else ()


def place_text(values: Mapping[str, FormValue]) -> str:
    """Return where the run goes, in words."""
    where = where_of(values)
    names = host_names(values)
    if where is Where.HOSTS:
        return names[0] if len(names) == 1 else f"{len(names)} hosts"
    if where is Where.SLURM:
        cluster = str(values[CLUSTER_PATH])
        return "Slurm on this computer" if cluster == LOCAL_HOST else f"Slurm on {cluster}"
    return f"Kubernetes, {values[CONTEXT_PATH]}" if where is Where.KUBERNETES else "this computer"


def launch_command(values: Mapping[str, FormValue], command: str) -> str:
    """Return the command that equals the launch, with the place as an option."""
    where = where_of(values)
    if not command or where is Where.LOCAL or "--" + where.value in command:
        return command
    target = ",".join(host_names(values)) if where is Where.HOSTS else str(values[target_path(where)])
    option = f"--{where.value} {shlex.quote(target)}"
    head, follow, _ = command.partition(" --follow")
    return f"{head} {option}{follow}"
