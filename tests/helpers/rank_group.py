"""Runs a function in several ranks (gloo, one thread each) from a test; a failing rank's output is in the assertion.

Each start costs 5 to 10 s (the import of torch in every rank), so a test module starts one group that runs many cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.train.parallel.local_ranks import RanksFailed, call_in_ranks


def run_in_ranks(function: Callable[..., Any], size: int, *, timeout_s: float = 420.0, **arguments: Any) -> list[Any]:
    """Call a module-level function in ``size`` processes and return what each returned, by rank.

    Args:
        function: Called as ``function(**arguments)``; it builds its process group itself, as with
            ``core.train.parallel.mesh.build_mesh``. Arguments and result go through JSON.
        size: How many ranks; at most 4 in tests.
        timeout_s: The test fails after it.
        **arguments: For the function.
    """
    try:
        return call_in_ranks(function, size, arguments, timeout_s=timeout_s)
    except RanksFailed as error:
        pytest.fail(str(error), pytrace=False)
