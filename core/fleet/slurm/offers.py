"""What a cluster offers: partitions with their limits and nodes (sinfo), and the user's accounts (sacctmgr)."""

from __future__ import annotations

import re

from core.contracts.errors import EnvironmentProblem
from core.fleet.slurm.commands import SlurmCommands, decoded, rows
from core.fleet.slurm.records import SlurmInfo, SlurmPartition

_SINFO = "%P|%a|%l|%F|%c|%m|%G|%f"
_NOTHING = "(null)"


def info_of(commands: SlurmCommands) -> SlurmInfo:
    """Return what the cluster offers.

    Raises:
        EnvironmentProblem: The link is lost, or there is no Slurm that answers.
        UserError: Slurm refused to tell.
    """
    version = commands.text(["sinfo", "--version"]).split()
    table = commands.text(["sinfo", "--noheader", f"--format={_SINFO}"])
    accounts, qos, has_accounting = _associations(commands)
    return SlurmInfo(
        version=version[-1] if version else "",
        partitions=partitions_of(table),
        accounts=accounts,
        qos=qos,
        has_accounting=has_accounting,
    )


def partitions_of(table: str) -> tuple[SlurmPartition, ...]:
    """Return the partitions of sinfo's table, where nodes that differ have a line each."""
    found: dict[str, SlurmPartition] = {}
    for row in rows(table, 8):
        partition = _partition(row)
        known = found.get(partition.name)
        found[partition.name] = partition if known is None else _joined(known, partition)
    return tuple(found.values())


def _partition(row: list[str]) -> SlurmPartition:
    name, available, limit, nodes, processors, memory, gres, features = row
    allocated, idle, other, total = [int(number) for number in nodes.split("/")]
    del other
    return SlurmPartition(
        name=name.removesuffix("*"),
        is_default=name.endswith("*"),
        is_up=available == "up",
        time_limit=limit,
        nodes=total,
        idle=idle,
        usable=allocated + idle,
        cpus_per_node=_number(processors),
        memory_bytes=_number(memory) << 20,
        gres=_listed(gres),
        features=_listed(features),
    )


def _joined(a: SlurmPartition, b: SlurmPartition) -> SlurmPartition:
    return SlurmPartition(
        name=a.name,
        is_default=a.is_default,
        is_up=a.is_up,
        time_limit=a.time_limit,
        nodes=a.nodes + b.nodes,
        idle=a.idle + b.idle,
        usable=a.usable + b.usable,
        cpus_per_node=min(a.cpus_per_node, b.cpus_per_node),
        memory_bytes=min(a.memory_bytes, b.memory_bytes),
        gres=tuple(dict.fromkeys(a.gres + b.gres)),
        features=tuple(dict.fromkeys(a.features + b.features)),
    )


def _number(text: str) -> int:
    """Return sinfo's number, which has a ``+`` where nodes differ, or a ``K`` where it is large."""
    match = re.match(r"(\d+(?:\.\d+)?)([KMG]?)", text)
    if match is None:
        return 0
    return int(float(match[1]) * {"": 1, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000}[match[2]])


def _listed(text: str) -> tuple[str, ...]:
    """Return a comma-separated list, where a comma in brackets, as in ``gpu:4(S:0,1)``, separates nothing."""
    return () if text == _NOTHING else tuple(part for part in re.split(r",(?![^(]*\))", text) if part)


def _associations(commands: SlurmCommands) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return the user's accounts and qualities of service, and whether the cluster keeps any."""
    user = commands.text(["id", "-un"]).strip()
    try:
        done = commands.ask(
            ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account,qos"]
        )
    except EnvironmentProblem:
        return (), (), False
    if done.code != 0:
        return (), (), False
    table = rows(decoded(done.stdout), 2)
    accounts = dict.fromkeys(account for account, _ in table if account)
    qos = dict.fromkeys(name for _, names in table for name in names.split(",") if name)
    return tuple(accounts), tuple(qos), True
