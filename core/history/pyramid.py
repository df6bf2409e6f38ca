"""The stored min/max pyramid of each curve: buckets of 128 points, 1024, 8192, ... some hundred buckets a row.

Only whole buckets of finished chunks are in it, so that a live curve rewrites its last chunk alone; what is not covered
is read from finer buckets and at the ends from the points themselves (``core.history.curves``).
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from core.history import schema
from core.history.extremes import (
    Extremes,
    Points,
    combine,
    extremes_of,
    join_extremes,
    pack_extremes,
    unpack_extremes,
)

FINEST = 128
FACTOR = 8
PAGE = 512
_pages = schema.pyramid.c
_select_pages = (
    select(_pages.page, _pages.count, _pages.buckets)
    .where(
        _pages.curve == bindparam("the_curve"),
        _pages.level == bindparam("the_level"),
        _pages.page.between(bindparam("first_page"), bindparam("last_page")),
    )
    .order_by(_pages.page)
)
_put_page = insert(schema.pyramid)
_put_page = _put_page.on_conflict_do_update(
    index_elements=["curve", "level", "page"],
    set_={"count": _put_page.excluded.count, "buckets": _put_page.excluded.buckets},
)


def bucket_size(level: int) -> int:
    """Return the number of points in a bucket of a level, 0 being the finest."""
    return FINEST * FACTOR**level


def read_buckets(connection: Connection, curve: int, level: int, first: int, last: int) -> Extremes:
    """Return the buckets from ``first`` up to, not with, ``last``; there must be at least one and all must be stored."""
    wanted = {
        "the_curve": curve,
        "the_level": level,
        "first_page": first // PAGE,
        "last_page": (last - 1) // PAGE,
    }
    parts: list[Extremes] = []
    for page, count, data in connection.execute(_select_pages, wanted):
        buckets = unpack_extremes(data, count, page * PAGE * bucket_size(level))
        parts.append(buckets[max(first - page * PAGE, 0) : last - page * PAGE])
    return join_extremes(parts)


def extend(connection: Connection, curve: int, first_index: int, points: Points) -> None:
    """Add finished points at ``first_index`` to every level; both are multiples of the finest bucket."""
    after = first_index + len(points)
    fine = extremes_of(points, first_index, FINEST)
    fine_start = first_index // FINEST
    _write(connection, curve, 0, fine_start, fine)
    level = 1
    while (size := bucket_size(level)) <= after:
        start, end = first_index // size, after // size
        if end == start:
            return
        if start * FACTOR < fine_start:
            fine = read_buckets(connection, curve, level - 1, start * FACTOR, end * FACTOR)
        else:
            fine = fine[: end * FACTOR - fine_start]
        fine, fine_start = combine(fine, FACTOR), start
        _write(connection, curve, level, start, fine)
        level += 1


def cut(connection: Connection, curve: int, total: int) -> None:
    """Forget all buckets that hold points at or after the index ``total``."""
    levels = connection.execute(select(_pages.level).where(_pages.curve == curve).distinct()).scalars().all()
    for level in levels:
        kept = total // bucket_size(level)
        page = kept // PAGE
        rest = read_buckets(connection, curve, level, page * PAGE, kept) if kept % PAGE else None
        connection.execute(
            delete(schema.pyramid).where(_pages.curve == curve, _pages.level == level, _pages.page >= page)
        )
        if rest is not None:
            _write(connection, curve, level, page * PAGE, rest)


def _write(connection: Connection, curve: int, level: int, start: int, buckets: Extremes) -> None:
    """Append buckets at the position ``start``, which is where the level ends."""
    page = start // PAGE
    if start % PAGE:
        buckets = join_extremes([read_buckets(connection, curve, level, page * PAGE, start), buckets])
    rows: list[dict[str, object]] = []
    for offset in range(0, len(buckets), PAGE):
        part = buckets[offset : offset + PAGE]
        number = page + offset // PAGE
        rows.append(
            {
                "curve": curve,
                "level": level,
                "page": number,
                "count": len(part),
                "buckets": pack_extremes(part, number * PAGE * bucket_size(level)),
            }
        )
    connection.execute(_put_page, rows)
