"""The merged log: whole lines of all nodes in order of time, only ever growing, whatever comes late."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.contracts.mirrors import LinkRecord
from core.runlog.layout import RunLayout
from core.workspace.merged_log import MERGED_LOG, merged_log


def say(run_dir: Path, node: str, ts: float, text: str | bytes) -> None:
    """Append to a node's output, and note in its index when."""
    layout = RunLayout(run_dir)
    data = text if isinstance(text, bytes) else text.encode()
    with layout.stdout(node).open("ab") as file:
        file.write(data)
    with layout.stdout_index(node).open("a") as index:
        index.write(f"{ts:.3f} {layout.stdout(node).stat().st_size}\n")


def merged(run_dir: Path, *, is_ended: bool = False) -> str:
    return merged_log(run_dir, ("h1", "h2"), is_ended=is_ended).read_bytes().decode(errors="replace")


def test_lines_stand_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    say(tmp_path, "h1", 1.0, "a\n")
    say(tmp_path, "h2", 2.0, "b\nc\n")
    say(tmp_path, "h1", 3.0, "d\n")
    assert merged(tmp_path) == "h1 | a\nh2 | b\nh2 | c\nh1 | d\n"


def test_it_only_grows_and_what_comes_late_is_appended(tmp_path: Path) -> None:
    say(tmp_path, "h1", 5.0, "a\n")
    first = merged(tmp_path)
    say(tmp_path, "h2", 1.0, "late\n")
    say(tmp_path, "h1", 6.0, "b\n")
    assert merged(tmp_path) == first + "h2 | late\nh1 | b\n"
    assert merged(tmp_path) == merged(tmp_path)


def test_a_line_waits_for_its_end_unless_the_run_has_ended(tmp_path: Path) -> None:
    say(tmp_path, "h1", 1.0, "whole\nhal")
    assert merged(tmp_path) == "h1 | whole\n"
    say(tmp_path, "h1", 2.0, "f\n")
    say(tmp_path, "h2", 1.5, "torn")
    assert merged(tmp_path) == "h1 | whole\nh1 | half\n"
    assert merged(tmp_path, is_ended=True) == "h1 | whole\nh1 | half\nh2 | torn\n"


def test_output_without_an_index_is_there_too(tmp_path: Path) -> None:
    RunLayout(tmp_path).stdout("h1").write_text("x\ny\n")
    assert merged(tmp_path) == "h1 | x\nh1 | y\n"


def test_an_endless_line_and_hostile_bytes_do_no_harm(tmp_path: Path) -> None:
    say(tmp_path, "h1", 1.0, b"\x00\xff\x1b[2J\n" + b"x" * (1 << 20))
    text = merged(tmp_path)
    assert text.startswith("h1 | \x00\ufffd\x1b[2J\nh1 | xxx")
    assert len(text) > 1 << 20


def test_huge_output_is_passed_over_with_a_line_that_says_so(tmp_path: Path) -> None:
    with RunLayout(tmp_path).stdout("h1").open("wb") as file:
        file.truncate(40 << 20)
        file.seek(0, 2)
        file.write(b"\nlast\n")
    text = merged(tmp_path)
    assert "8 MiB of this node's output are left out" in text
    assert text.endswith("h1 | last\n")


def test_what_a_killed_reader_left_half_written_is_taken_back(tmp_path: Path) -> None:
    say(tmp_path, "h1", 1.0, "a\n")
    merged(tmp_path)
    with (tmp_path / MERGED_LOG).open("ab") as file:
        file.write(b"h1 | b\nh1")
    say(tmp_path, "h1", 2.0, "b\n")
    assert merged(tmp_path) == "h1 | a\nh1 | b\n"
    (tmp_path / MERGED_LOG).unlink()
    assert merged(tmp_path) == "h1 | a\nh1 | b\n"


def test_a_huge_output_whose_beginning_is_not_here_is_told_apart_by_offsets_of_the_whole(tmp_path: Path) -> None:
    say(tmp_path, "h1", 1.0, "a\n")
    assert merged(tmp_path) == "h1 | a\n"
    RunLayout(tmp_path).stdout("h1").write_text("z\n")
    RunLayout(tmp_path).link("h1").write_bytes(msgspec.json.encode(LinkRecord(stdout_start=5 << 20)))
    text = merged(tmp_path)
    assert text == "h1 | a\nh1 | ... 4 MiB of this node's output are left out here; look at it alone.\nh1 | z\n"
    assert merged(tmp_path) == text
