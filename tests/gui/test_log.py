"""The log: bounded lines whatever the file holds, an open last line, trimming, earlier parts, search."""

from __future__ import annotations

from PySide6.QtCore import Qt

from app.viewmodels.log_lines import MAX_LINE_CHARS, LogLines, display_line
from app.views.theme import apply_theme
from app.views.widgets.log_view import LogView
from core.contracts.runs import LogChunk


def chunks_of(data: bytes, size: int):
    for start in range(0, len(data), size):
        part = data[start : start + size]
        yield LogChunk(text=part.decode("utf-8", "replace"), start=start, end=start + len(part), total=len(data))


def shown_by(lines: LogLines, chunks) -> list[str]:
    shown: list[str] = []
    for chunk in chunks:
        change = lines.append(chunk)
        if change.replaces_last:
            shown.pop()
        shown += change.lines
        del shown[: change.num_removed_first]
    return shown


def test_lines_come_out_whole_however_the_file_is_cut():
    data = "".join(f"line {n} with some text\n" for n in range(500)).encode()
    for size in (7, 64, 1000, len(data)):
        assert shown_by(LogLines(), chunks_of(data, size)) == data.decode().splitlines()


def test_a_progress_bar_shows_its_last_state():
    assert display_line("10%\r50%\r100%") == "100%"
    assert display_line("done\r") == "done"


def test_escape_codes_and_control_characters_are_removed():
    assert display_line("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07plain") == "red and plain"
    assert "\x00" not in display_line("a\x00b")


def test_an_endless_line_is_cut_and_counted():
    data = b"x" * 3_000_000 + b"\nnext\n"
    lines = LogLines()
    shown = shown_by(lines, chunks_of(data, 256_000))
    assert len(shown) == 2
    assert len(shown[0]) < MAX_LINE_CHARS + 100
    assert "more characters" in shown[0]
    assert shown[1] == "next"
    assert lines.end == len(data)


def test_the_oldest_lines_go_first_and_their_bytes_are_known():
    data = "".join(f"line {n}\n" for n in range(1_000)).encode()
    lines = LogLines(max_lines=100)
    shown = shown_by(lines, chunks_of(data, 333))
    assert shown == [f"line {n}" for n in range(900, 1_000)]
    assert data[lines.start :].decode().splitlines() == shown


def test_the_end_of_a_log_begins_with_a_whole_line():
    data = b"first line\nsecond line\nthird line\n"
    start = 5
    chunk = LogChunk(text=data[start:].decode(), start=start, end=len(data), total=len(data))
    lines = LogLines()
    assert lines.reset(chunk)[:2] == ("second line", "third line")
    assert lines.start == data.index(b"second")
    earlier = LogChunk(text=data[: lines.start].decode(), start=0, end=lines.start, total=len(data))
    assert lines.prepend(earlier) == ("first line",)
    assert lines.start == 0


def view_of(qtbot, qapp) -> LogView:
    apply_theme(qapp, "light")
    view = LogView()
    qtbot.addWidget(view)
    view.resize(700, 400)
    view.show()
    return view


def test_the_view_follows_the_end_and_replaces_the_open_line(qtbot, qapp):
    view = view_of(qtbot, qapp)
    view.reset(LogChunk(text="one\ntwo", start=0, end=7, total=7))
    view.append(LogChunk(text=" and more\nthree\n", start=7, end=23, total=23))
    qtbot.waitUntil(lambda: view.text.toPlainText() == "one\ntwo and more\nthree")
    many = "".join(f"line {n}\n" for n in range(300))
    view.append(LogChunk(text=many, start=23, end=23 + len(many), total=23 + len(many)))
    bar = view.text.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 0 and bar.value() == bar.maximum())


def test_the_document_equals_the_lines_after_trimming(qtbot, qapp):
    view = view_of(qtbot, qapp)
    view.lines.max_lines = 50
    data = "".join(f"line {n}\n" for n in range(400)).encode()
    for chunk in chunks_of(data, 500):
        view.append(chunk)
    expected = "\n".join(f"line {n}" for n in range(350, 400))
    qtbot.waitUntil(lambda: view.text.toPlainText() == expected)


def test_earlier_lines_are_asked_for_and_put_on_top(qtbot, qapp):
    view = view_of(qtbot, qapp)
    view.reset(LogChunk(text="torn\nlast\n", start=100, end=110, total=110))
    with qtbot.waitSignal(view.earlier_wanted) as asked:
        qtbot.mouseClick(view._earlier, Qt.MouseButton.LeftButton)
    assert asked.args == [105]
    view.prepend(LogChunk(text="x" * 94 + "\nbefore\n"[0:11], start=0, end=105, total=110))
    assert view.text.toPlainText().splitlines()[-2:] == ["before", "last"]
    assert view._earlier.isHidden()


def test_search_goes_round_and_says_when_nothing_is_found(qtbot, qapp):
    view = view_of(qtbot, qapp)
    view.reset(LogChunk(text="alpha\nbeta\nalpha two\n", start=0, end=21, total=21))
    view.text.moveCursor(view.text.textCursor().MoveOperation.Start)
    qtbot.keyClicks(view.search, "alpha")
    for line in (0, 2, 0):
        qtbot.keyClick(view.search, Qt.Key.Key_Return)
        assert view.text.textCursor().blockNumber() == line
    view.search.setText("omega")
    qtbot.keyClick(view.search, Qt.Key.Key_Return)
    assert "Not in" in view._found.text()
