"""Trains ``train.language`` several times as one rank of a group, or alone, and returns what came of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from core.plugins.decode import decode_spec
from core.runlog.lineage import artifacts_of
from core.train.tasks.language import KIND
from tests.helpers.engine_runs import SpyContext, new_store


def train_cases(home: str, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Train each spec; return its losses, validations and artifacts by kind."""
    found: dict[str, dict[str, Any]] = {}
    stores: list[object] = []
    rank = int(os.environ.get("RANK", "0"))
    for number, (name, mapping) in enumerate(cases.items()):
        folder = Path(home) / name
        folder.mkdir(parents=True, exist_ok=True)
        stores.append(new_store(folder, number, rank))
        context = SpyContext(folder, rank=rank)
        assert KIND.rank_run is not None
        KIND.rank_run(decode_spec(mapping), context)
        context.close()
        found[name] = {
            "losses": list(context.losses().values()),
            "validation": context.curve("val/loss"),
            "artifacts": {kind: str(path) for kind, path in artifacts_of(context.run_dir).items()},
        }
    return found
