"""Waits for conditions, with a limit that only a broken system reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(condition: Callable[[], Value | None], what: str, limit_s: float = 60.0) -> Value:
    """Return the first true value of ``condition``; fails the test with ``what`` when it stays false."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain for: {what}"
        time.sleep(0.02)
