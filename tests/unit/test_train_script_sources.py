"""What scripts write, read while it grows: TensorBoard, CSV, the Trainer's lines; half lines, rotation, name clashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from core.train.script.csv_source import CsvSource
from core.train.script.discovery import Discovery
from core.train.script.follow import FollowedLines
from core.train.script.points import KeyBook, MetricSource, Point
from core.train.script.tensorboard_source import TensorBoardSource
from core.train.script.trainer_source import TrainerSource, metric_name, parse_log_line
from core.train.script.watch import ScriptWatch
from tests.helpers.recording_context import RecordingContext


def points(source: MetricSource) -> list[tuple[int, dict[str, float]]]:
    return [(point.step, point.values) for point in source.poll()]


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


class Board:
    """Writes scalars as TensorBoard itself does."""

    def __init__(self, folder: Path) -> None:
        self.writer = EventFileWriter(str(folder))

    def add(self, step: int, **values: float) -> None:
        for tag, value in values.items():
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            self.writer.add_event(Event(step=step, summary=summary, wall_time=1.0))
        self.writer.flush()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    found = Board(tmp_path / "tb")
    yield found
    found.writer.close()


def event_file(folder: Path) -> Path:
    (path,) = folder.glob("*.tfevents.*")
    return path


def test_tensorboard_scalars_arrive_as_they_are_written(tmp_path: Path, board: Board) -> None:
    board.add(1, loss=3.0, accuracy=0.5)
    source = TensorBoardSource(event_file(tmp_path / "tb"))
    assert points(source) == [(1, {"loss": 3.0, "accuracy": 0.5})]
    assert points(source) == []
    board.add(2, loss=2.0)
    board.add(3, loss=1.5)
    assert points(source) == [(2, {"loss": 2.0}), (3, {"loss": 1.5})]


def test_a_half_written_tensorboard_record_waits(tmp_path: Path, board: Board) -> None:
    board.add(1, loss=3.0)
    whole = event_file(tmp_path / "tb").read_bytes()
    copy = tmp_path / "copy.tfevents.1"
    copy.write_bytes(whole[:-7])
    source = TensorBoardSource(copy)
    assert points(source) == []
    with copy.open("ab") as file:
        file.write(whole[-7:])
    assert points(source) == [(1, {"loss": 3.0})]


def test_csv_rows_arrive_once_they_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append(path, "epoch,Step,loss,note\n1,10,0.5,warm\n1,11,0.")
    source = CsvSource(path)
    assert points(source) == [(10, {"epoch": 1.0, "loss": 0.5})]
    append(path, "25,\r\n2,12,nan,x\n")
    (second, third) = points(source)
    assert second == (11, {"epoch": 1.0, "loss": 0.25})
    assert third[0] == 12
    assert third[1]["loss"] != third[1]["loss"]


def test_a_rewritten_csv_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append(path, "step,loss\n1,0.5\n2,0.4\n3,0.3\n")
    source = CsvSource(path)
    assert len(points(source)) == 3
    path.write_text("step;acc\n7;0.1\n")
    assert points(source) == [(7, {"acc": 0.1})]
    replacement = tmp_path / "other"
    replacement.write_text("step,loss\n" + "8,0.9\n" * 40)
    replacement.replace(path)
    assert len(points(source)) == 40


def test_rows_from_before_the_start_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append(path, "step,loss\n1,0.5\n2,0.4\n")
    source = CsvSource(path, skip_bytes=path.stat().st_size)
    append(path, "3,0.3\n")
    assert points(source) == [(3, {"loss": 0.3})]


def test_a_table_without_steps_counts_as_metrics_only_when_it_was_named(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    append(path, "height,width\n1.5,2.5\n3,4\n")
    assert points(CsvSource(path)) == []
    assert points(CsvSource(path, needs_step_column=False)) == [
        (1, {"height": 1.5, "width": 2.5}),
        (2, {"height": 3.0, "width": 4.0}),
    ]


def test_an_endless_line_does_not_grow_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"x" * (3 << 20))
    lines = FollowedLines(path)
    for _ in range(5):
        assert lines.read() == ([], False)
    append(path, "\nnext\n")
    assert lines.read()[0][-1] == "next"


BAR = "\r{percent}%|███      | {done}/{total} [00:01<00:03, 9.7it/s]"


def bar(done: int, total: int) -> str:
    return BAR.format(percent=100 * done // total, done=done, total=total)


def test_trainer_lines_take_their_step_from_the_bar_drawn_after_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, "from before {'loss': 9.0, 'epoch': 0.1}\n")
    source = TrainerSource(log, log.stat().st_size)
    append(log, bar(0, 16) + "\r        \r{'loss': '4.1', 'learning_rate': '1e-05', 'epoch': '0.25'}\n")
    assert points(source) == []
    append(log, bar(2, 16))
    assert points(source) == [(2, {"train/loss": 4.1, "train/learning_rate": 1e-05, "train/epoch": 0.25})]
    append(
        log, bar(8, 16) + "\n" + bar(0, 1) + "\x1b[A\r   \n\r   \r\x1b[A{'eval_loss': 4.0, 'epoch': 1.0}\n" + bar(8, 16)
    )
    assert points(source) == [(8, {"eval/loss": 4.0, "train/epoch": 1.0})]
    append(log, "{'train_runtime': 2.5, 'train_loss': 4.05, 'epoch': 2.0}\n")
    assert [(p.step, p.values) for p in (*source.poll(), *source.finish())] == [(8, {"train/epoch": 2.0})]
    assert source.totals == {"train/runtime": 2.5, "train/loss": 4.05}
    assert (source.step, source.total_steps) == (8, 16)


def test_trainer_lines_without_a_bar_use_the_state_file_once_it_is_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = TrainerSource(log, 0)
    append(log, "{'loss': 4.1, 'epoch': 0.5}\n")
    assert [step for step, _ in points(source)] == [1]
    state = tmp_path / "trainer_state.json"
    state.write_text('{"global_st')
    source.learn_state(state)
    state.write_text('{"global_step": 8, "epoch": 1.0}')
    source.learn_state(state)
    append(log, "{'loss': 4.0, 'epoch': 1.25}\n{'loss': 4.0, 'epoch': 2, 'step': 33}\n")
    assert [step for step, _ in points(source)] == [10, 33]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'loss': }",
        "{'a': 1}",
        "loss: 3",
        "{'epoch'}",
        "{1, 2}",
        "{'loss': 1, 'epoch': f()}",
        "{" * 5000 + "}",
    ],
)
def test_other_output_is_no_log_line(text: str) -> None:
    assert parse_log_line(text) is None


def test_names_are_those_of_the_trainers_own_reports() -> None:
    assert [metric_name(key) for key in ("loss", "eval_loss", "test_f1")] == ["train/loss", "eval/loss", "test/f1"]


class Fixed:
    def __init__(self, label: str) -> None:
        self.label = label

    def poll(self) -> list[Point]:
        return []


def test_two_sources_never_share_a_curve() -> None:
    keys, first, second, third = KeyBook(), Fixed("a"), Fixed("b"), Fixed("b")
    assert keys.rename(first, {"loss": 1.0}) == {"loss": 1.0}
    assert keys.rename(second, {"loss": 2.0, "acc": 3.0}) == {"b/loss": 2.0, "acc": 3.0}
    assert keys.rename(third, {"loss": 4.0}) == {"b-2/loss": 4.0}
    assert keys.rename(first, {"loss": 5.0}) == {"loss": 5.0}


def test_discovery_sees_new_and_changed_files_only(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name in ("old.csv", "deep/grows.csv", ".git/hidden.csv", "readme.md"):
        (tmp_path / name).write_text("step,loss\n")
    found = Discovery([tmp_path])
    append(tmp_path / "deep" / "grows.csv", "1,2\n")
    append(tmp_path / ".git" / "hidden.csv", "1,2\n")
    (tmp_path / "deep" / "er" / "events.out.tfevents.1.host").write_bytes(b"")
    (tmp_path / "new.tsv").write_text("step\tloss\n")
    assert [path.name for path in found.changed()] == ["events.out.tfevents.1.host", "grows.csv", "new.tsv"]
    assert found.size_before(tmp_path / "deep" / "grows.csv") == 10
    assert found.changed() == found.changed()


def test_the_watch_brings_all_sources_into_one_run(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    context = RecordingContext(tmp_path / "home")
    log = context.layout.stdout()
    log.write_text("")
    watch = ScriptWatch(context, [work, tmp_path / "missing"], log, 0)
    board = Board(work / "runs" / "exp")
    board.add(1, loss=3.0)
    append(work / "log.csv", "step,loss\n1,0.5\n")
    append(log, bar(0, 4) + "\r{'loss': 1.0, 'epoch': 1}\n" + bar(2, 4))
    watch.finish()
    board.writer.close()
    values: dict[str, float] = {}
    for _, found in context.metrics:
        values |= found
    assert values == {"train/loss": 1.0, "train/epoch": 1.0, "loss": 0.5, "exp/loss": 3.0}
    assert context.progresses[-1] == (0.5, "Training")
    assert watch.num_points == 3
