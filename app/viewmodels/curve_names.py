"""What the key of a curve says: the metric or reading, the node or rank it is of, and what chart it belongs to.

Readings of a run on other hosts are called ``<node>:<key>``; metrics of further ranks ``<key> [rank N]`` and of workers on
other nodes ``<key> [<node>]``. They share the chart of the plain key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from core.contracts.units import READINGS, Reading, reading_of

GROUP_ORDER = {reading.group: n for n, reading in reversed(list(enumerate(READINGS)))}
_NODE = re.compile(r"(?P<node>[A-Za-z0-9_-]+):(?P<key>.+)")
_OF_RANK = re.compile(r" \[[^\[\]]+\]$")
_UNIT_ENDINGS = (("_bytes", "B"), ("_s", "s"))
_CORE = re.compile(r"cpu\.\d+\.percent")


@lru_cache(maxsize=16_384)
def curve_reading(key: str) -> Reading:
    """Return what a curve shows; of a node's reading the title begins with the node.

    Single cores of other hosts are not plotted: with many hosts they would be thousands of curves that say little.
    """
    node, base = split_node(key)
    reading = reading_of(base)
    if not node:
        return reading
    is_plotted = reading.is_plotted and _CORE.fullmatch(base) is None
    return replace(reading, key=key, title=f"{node}: {reading.title}", is_plotted=is_plotted)


def split_node(key: str) -> tuple[str, str]:
    """Return the node and the plain key of a node's reading; an empty node for every other key."""
    match = _NODE.fullmatch(key)
    if match is None or reading_of(match["key"]).group not in GROUP_ORDER:
        return "", key
    return match["node"], match["key"]


def is_telemetry_key(key: str) -> bool:
    """Tell whether a key is a reading of a host rather than a metric of the run."""
    return curve_reading(key).group in GROUP_ORDER


def is_spread(keys: Iterable[str]) -> bool:
    """Tell whether some of the curves are of a node or a further rank."""
    return any(split_node(key)[0] or is_of_rank(key) for key in keys)


def is_of_rank(key: str) -> bool:
    """Tell whether a metric is of a further rank, or of a worker on another node."""
    return _OF_RANK.search(key) is not None


def chart_name(key: str) -> str:
    """Return the name of the chart a curve belongs to."""
    if is_telemetry_key(key):
        return curve_reading(key).group
    plain = _OF_RANK.sub("", key)
    return plain.partition("/")[2] or plain


def metric_unit(key: str) -> str:
    """Return the unit that a metric's name ends in: ``B`` for ``..._bytes``, ``s`` for ``..._s``; empty for others."""
    plain = _OF_RANK.sub("", key)
    if plain.endswith("_per_s"):
        return ""
    return next((unit for ending, unit in _UNIT_ENDINGS if plain.endswith(ending)), "")


def curve_label(key: str) -> str:
    """Return what the curve is called in a legend."""
    return curve_reading(key).title
