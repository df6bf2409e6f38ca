"""Pieces of a run's output: whole characters, bounded, from either end."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from core.workspace.logs import read_log


@given(text=st.text(max_size=300), limit=st.integers(4, 50))
def test_pieces_put_together_are_the_whole(tmp_path_factory: object, text: str, limit: int) -> None:
    path = tmp_path_factory.mktemp("log") / "stdout.log"  # type: ignore[attr-defined]
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    expected = path.read_bytes().decode("utf-8", errors="replace")
    offset, pieces = 0, ""
    while (piece := read_log(path, offset, limit)).end > offset:
        pieces += piece.text
        offset = piece.end
    assert pieces == expected
    assert offset == path.stat().st_size


def test_the_end_of_a_log_begins_on_a_whole_character(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_text("ä" * 100, encoding="utf-8")
    piece = read_log(path, -5)
    assert piece.text == "ää"
    assert (piece.start, piece.end, piece.total) == (196, 200, 200)


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "absent", -100).total == 0


def test_an_endless_line_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"x" * 1_000_000)
    piece = read_log(path, -1_000_000_000, 1000)
    assert (len(piece.text), piece.total) == (1000, 1_000_000)
