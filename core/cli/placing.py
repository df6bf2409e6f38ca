"""Where the command line says a run is to go: ``--hosts``, ``--slurm``, ``--kubernetes`` and their kin, put into its spec."""

from __future__ import annotations

import argparse

import msgspec

from core.contracts.errors import UserError
from core.contracts.specs import LaunchSpec, RunSpec


def host_names(text: str) -> tuple[str, ...]:
    """Return the names in ``a,b``; UserError when one is named twice or none is."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UserError("No host is named.", "Give names such as: --hosts a,b")
    if len(set(names)) < len(names):
        raise UserError("A host is named twice.", "Name each host once.")
    return names


def placed_spec(spec: RunSpec, options: argparse.Namespace) -> RunSpec:
    """Return the spec with what the options say of its place; one kind of place replaces the spec's own."""
    launch = spec.launch
    if options.hosts or options.slurm or options.kubernetes:
        launch = _on(launch, options)
    if options.devices:
        launch = msgspec.structs.replace(launch, devices=options.devices)
    if options.queue:
        launch = msgspec.structs.replace(launch, queue=True)
    return msgspec.structs.replace(spec, launch=launch)


def _on(launch: LaunchSpec, options: argparse.Namespace) -> LaunchSpec:
    return msgspec.structs.replace(
        launch,
        hosts=host_names(options.hosts) if options.hosts else (),
        slurm=msgspec.structs.replace(launch.slurm, cluster=options.slurm),
        kubernetes=msgspec.structs.replace(launch.kubernetes, context=options.kubernetes),
    )
