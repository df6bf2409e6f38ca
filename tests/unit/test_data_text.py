"""Text of language models: documents, token files, packing, labels, chats, and everything that can be wrong with them."""

from __future__ import annotations

import csv
import gzip
import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.train.data.batches import make_batches
from core.train.data.documents import document_files
from core.train.data.packing import best_fit, make_rows
from core.train.data.text import NOT_COUNTED, language_parts
from core.train.data.tokens import TokenFile, made_once
from core.train.engine.contracts import Batch, DataPart, Mesh, SampleKey
from core.train.models.tokenizer import byte_tokenizer
from core.train.specs.loading import LoadingSpec
from core.train.specs.text_data import TextDataSpec
from tests.helpers.recording_context import RecordingContext

END = 256
MESH = Mesh(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path / "home")


def parts_of(
    data: TextDataSpec, tokenizer: Any, context: RecordingContext, *, length: int = 16, **more: Any
) -> tuple[DataPart, DataPart | None]:
    return language_parts(
        data, tokenizer, length=length, cache=context.home / "cache", mesh=MESH, context=context, seed=1, **more
    )


def batch_of(part: DataPart) -> Batch:
    """Return the whole part as one batch."""
    return part.collate([part.samples[SampleKey(number, 0)] for number in range(len(part.samples))])


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(folder: Path, contents: list[str]) -> Path:
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number:03d}.txt").write_text(content, encoding="utf-8")
    return folder


TABLE = [{"text": f"document {number}", "other": number} for number in range(7)]


def write_table(path: Path) -> Path:
    body = "".join(json.dumps(row) + "\n" for row in TABLE).encode()
    name = path.name
    if name.endswith(".jsonl"):
        path.write_bytes(body)
    elif name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(body))
    elif name.endswith(".jsonl.zst"):
        path.write_bytes(zstandard.compress(body))
    elif name.endswith(".json"):
        path.write_text(json.dumps(TABLE))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(TABLE), path, row_group_size=3)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "other"], delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writeheader()
            writer.writerows(TABLE)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_every_kind_of_table_gives_its_documents_from_any_row_on(tmp_path: Path, name: str) -> None:
    files = document_files(TextDataSpec(data=str(write_table(tmp_path / name))), None)
    assert [one.pieces[0].text for one in files] == [row["text"] for row in TABLE]
    (last, *_) = files.read(0, 5)
    assert last.pieces[0].text == "document 5"
    assert last.name.endswith("row 6")


def test_a_folder_gives_texts_and_tables_sorted_and_limits_hold(tmp_path: Path) -> None:
    folder = texts(tmp_path / "t", ["first", "second"])
    write_table(folder / "rows.jsonl")
    (folder / "picture.png").write_bytes(b"x")
    (folder / ".hidden.txt").write_text("x")
    (folder / "settings.json").write_text('{"configuration": 1}')
    data = TextDataSpec(data=str(folder))
    assert len(list(document_files(data, None))) == 9
    limited = TextDataSpec(data=str(folder), max_documents=3)
    assert [one.pieces[0].text for one in document_files(limited, None)] == ["first", "second", "document 0"]
    short = TextDataSpec(data=str(folder), max_bytes=8)
    assert [one.pieces[0].text for one in document_files(short, None)] == ["first", "sec"]


def test_a_stream_of_rows_has_the_boundaries_of_its_documents(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    folder = texts(tmp_path / "t", ["abcde", "xy", "0123456789"])
    part, validation = parts_of(TextDataSpec(data=str(folder), validation_fraction=0), tokenizer, context, length=8)
    batch = batch_of(part)
    a, x, zero = ord("a"), ord("x"), ord("0")
    assert validation is None
    assert batch["input_ids"].tolist() == [
        [a, a + 1, a + 2, a + 3, a + 4, END, x, x + 1],
        [END, *range(zero, zero + 7)],
        [zero + 7, zero + 8, zero + 9, END, 257, 257, 257, 257],
    ]
    no = NOT_COUNTED
    assert batch["labels"].tolist() == [
        [a + 1, a + 2, a + 3, a + 4, END, no, x + 1, END],
        [no, *range(zero + 1, zero + 8)],
        [zero + 8, zero + 9, END, no, no, no, no, no],
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3] * 2]
    assert batch["segment_ids"].tolist() == [[0] * 6 + [1] * 2, [0] + [1] * 7, [0] * 4 + [1] * 4]


def test_without_packing_a_row_is_a_document_and_what_is_cut_is_said(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    folder = texts(tmp_path / "t", ["abc", "0123456789", "xy"])
    data = TextDataSpec(data=str(folder), packing="off", validation_fraction=0)
    batch = batch_of(parts_of(data, tokenizer, context, length=6)[0])
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert batch["input_ids"].shape == (3, 6)
    assert batch["labels"][1].tolist() == list(range(ord("1"), ord("7")))
    assert batch["labels"][2].tolist() == [ord("y"), END, *[NOT_COUNTED] * 4]
    assert batch["position_ids"].tolist() == [list(range(6))] * 3
    assert any("1 documents are longer than 6" in message and "5 tokens" in message for _, message in context.logs)


def test_best_fit_cuts_no_document_that_fits(tmp_path: Path, tokenizer: Any, context: RecordingContext) -> None:
    lengths = [9, 3, 5, 6, 2, 11, 4, 7, 1, 15, 16, 40]
    folder = texts(tmp_path / "t", ["q" * length for length in lengths])
    data = TextDataSpec(data=str(folder), packing="best-fit", validation_fraction=0)
    part, _ = parts_of(data, tokenizer, context, length=16)
    batch = batch_of(part)
    ends = (batch["input_ids"] == END).sum()
    assert ends == len(lengths)
    # A document of n letters has n labels: the letters after the first, and its end.
    assert (batch["labels"] != NOT_COUNTED).sum() == sum(lengths)
    assert len(part.samples) <= -(-sum(lengths) // 16) + 2


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), max_size=60),
    length=st.integers(1, 17),
    packing=st.sampled_from(["stream", "best-fit"]),
)
def test_packing_holds_every_token_once_within_the_rows(lengths: list[int], length: int, packing: str) -> None:
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    rows = make_rows(packing, starts, length)
    pieces = [rows.pieces(row) for row in range(len(rows))]
    covered = sorted(token for row in pieces for first, last in row for token in range(first, last))
    assert covered == list(range(sum(lengths)))
    assert all(0 < sum(last - first for first, last in row) <= length for row in pieces)
    documents = np.repeat(np.arange(len(lengths)), lengths)
    assert all(len(set(documents[first:last].tolist())) == 1 for row in pieces for first, last in row)


def test_best_fit_wastes_little_on_ragged_data() -> None:
    lengths = np.random.default_rng(0).integers(1, 512, 4000)
    starts = np.cumsum([0, *lengths])
    rows = best_fit([(a, b) for a, b in pairwise(starts.tolist())], 512)
    assert len(rows) * 512 < 1.02 * lengths.sum()


def test_documents_are_held_out_by_content_and_a_single_text_at_its_end(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    rows = [{"text": f"the document number {number}"} for number in range(200)]
    data = TextDataSpec(data=str(write_lines(tmp_path / "a.jsonl", rows)), packing="off", validation_rows=0)
    training, validation = parts_of(data, tokenizer, context, length=64)
    assert validation is not None
    assert len(training.samples) + len(validation.samples) == 200
    assert 8 <= len(validation.samples) <= 34
    held = {tuple(row) for row in batch_of(validation)["input_ids"].tolist()}
    write_lines(tmp_path / "a.jsonl", [*rows, *({"text": f"a later one {number}"} for number in range(50))])
    again = parts_of(data, tokenizer, context, length=64)[1]
    assert again is not None
    assert held <= {tuple(row) for row in batch_of(again)["input_ids"].tolist()}
    single = TextDataSpec(data=str(texts(tmp_path / "t", ["z" * 1000])), validation_rows=3)
    training, validation = parts_of(single, tokenizer, context)
    assert validation is not None
    assert (len(training.samples), len(validation.samples)) == (57, 3)


CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Ok"},
]


def counted_text(batch: Batch, row: int = 0) -> str:
    labels = batch["labels"][row]
    names = {256: "<end>", 258: "<turn>", 259: "<turn-end>"}
    return "".join(names.get(label, chr(label) if label < 256 else "?") for label in labels.tolist() if label != -100)


@pytest.mark.parametrize(("train_on", "expected"), [("assistant", "Yes?<turn-end>Ok<turn-end>"), ("all", "<turn>user")])
def test_of_a_chat_the_answers_count(
    tmp_path: Path, tokenizer: Any, context: RecordingContext, train_on: Any, expected: str
) -> None:
    path = write_lines(tmp_path / "c.jsonl", [{"chat": CHAT}, {"chat": CHAT[:1]}])
    data = TextDataSpec(data=str(path), messages_field="chat", train_on=train_on, packing="off", validation_fraction=0)
    batch = batch_of(parts_of(data, tokenizer, context, length=128)[0])
    if train_on == "assistant":
        assert counted_text(batch) == expected
        assert batch["labels"].shape[0] == 1
        assert any("1 chats without an answer" in message for _, message in context.logs)
    else:
        assert counted_text(batch).startswith("user\nHi<turn-end>\n<turn>assistant")


def test_a_template_of_the_users_is_taken_and_one_that_moves_turns_is_refused(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    path = write_lines(tmp_path / "c.jsonl", [{"chat": CHAT}])
    template = tmp_path / "t.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    data = TextDataSpec(data=str(path), messages_field="chat", chat_template=str(template), validation_fraction=0)
    assert counted_text(batch_of(parts_of(data, tokenizer, context, length=64)[0])) == "Yes?;Ok;"
    backwards = "{% for m in messages | reverse %}{{ m.content }}{% endfor %}"
    data = TextDataSpec(data=str(path), messages_field="chat", chat_template=backwards, validation_fraction=0)
    with pytest.raises(UserError, match=r"row 1: the chat template does not write"):
        parts_of(data, tokenizer, context)


def test_token_files_are_made_once_and_again_when_the_text_changes(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    folder = texts(tmp_path / "t", ["abc", "def"])
    data = TextDataSpec(data=str(folder), validation_fraction=0)
    parts_of(data, tokenizer, context)
    made = context.progresses.count
    first = len(context.progresses)
    parts_of(data, tokenizer, context)
    assert len(context.progresses) == first, made
    (folder / "000.txt").write_text("abcd")
    part, _ = parts_of(data, tokenizer, context)
    assert len(context.progresses) > first
    assert batch_of(part)["input_ids"][0, 3] == ord("d")


def test_of_several_who_come_at_once_one_makes_it_and_a_broken_one_leaves_nothing(tmp_path: Path) -> None:
    from core.train.data.tokens import Made

    makers: list[Path] = []
    inside = threading.Barrier(4)

    def make(folder: Path) -> Made:
        makers.append(folder)
        return Made(names=(), dtype="uint16", is_counted=False)

    def come() -> None:
        inside.wait()
        made_once(tmp_path / "cache" / "key", make, lambda: False)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makers) == 1

    def fail(folder: Path) -> Made:
        (folder / "half").write_text("x")
        raise UserError("It is broken.")

    with pytest.raises(UserError):
        made_once(tmp_path / "cache" / "other", fail, lambda: False)
    assert not [path for path in (tmp_path / "cache").iterdir() if "other" in path.name and path.suffix != ".lock"]
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache should be")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        made_once(blocked / "key", make, lambda: False)


def test_a_stop_ends_the_tokenising(tmp_path: Path, tokenizer: Any, context: RecordingContext) -> None:
    context.stop_when = lambda: True
    with pytest.raises(Cancelled):
        parts_of(TextDataSpec(data=str(texts(tmp_path / "t", ["abc"]))), tokenizer, context)
    assert not list((context.home / "cache").glob("*/made.json"))


def faulty(folder: Path) -> Iterator[tuple[str, TextDataSpec, str]]:
    """Yield data that are wrong, and words of the sentence about them."""
    good = '{"text": "a"}\n'
    contents = {
        "line.jsonl": good + "{broken\n",
        "type.jsonl": good + '{"text": 5}\n',
        "column.jsonl": good + '{"words": "a"}\n',
        "ragged.csv": "text,other\na,b\nc\n",
        "nocolumn.csv": "words\na\n",
        "value.json": '{"text": "a"}',
        "bad.parquet": "no parquet",
        "cut.jsonl.gz": "",
        "chat.jsonl": '{"chat": [{"role": "user"}]}\n',
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress((good * 500).encode())[:-20])
    words = {
        "line.jsonl": "line 2, is no JSON object",
        "type.jsonl": "row 2: 'text' is no text",
        "column.jsonl": "row 2, has no column 'text' (it has: words)",
        "ragged.csv": "line 3, has not as many values",
        "nocolumn.csv": "has no column 'text' (it has: words)",
        "value.json": "is no list of JSON objects",
        "bad.parquet": "damaged or no Parquet file",
        "cut.jsonl.gz": "ends too early",
    }
    for name, told in words.items():
        yield name, TextDataSpec(data=str(folder / name), validation_fraction=0), told
    yield (
        "chat",
        TextDataSpec(data=str(folder / "chat.jsonl"), messages_field="chat"),
        "row 1: its messages are no list",
    )
    yield "none", TextDataSpec(data=str(folder / "nowhere")), "There is no"
    (folder / "empty").mkdir()
    yield "empty", TextDataSpec(data=str(folder / "empty")), "no files"
    (folder / "blank.txt").write_text("")
    yield "blank", TextDataSpec(data=str(folder / "blank.txt")), "There is no text"
    yield "plain", TextDataSpec(data=str(folder / "blank.txt"), messages_field="chat"), "no tables"


def test_everything_wrong_is_said_with_file_and_row(tmp_path: Path, tokenizer: Any, context: RecordingContext) -> None:
    for name, data, told in faulty(tmp_path):
        with pytest.raises((UserError, EnvironmentProblem)) as caught:
            parts_of(data, tokenizer, context)
        assert told in caught.value.message, name
        assert caught.value.hint


def test_a_token_beyond_the_vocabulary_names_the_document(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "aa"}, {"text": "az"}])
    with pytest.raises(UserError, match=r"a\.jsonl, row 1: the tokenizer gives the token 256, the model knows 200"):
        parts_of(TextDataSpec(data=str(path)), tokenizer, context, vocabulary=200)


@pytest.mark.parametrize("packing", ["stream", "best-fit", "off"])
@pytest.mark.parametrize("processes", [0, 2])
def test_a_stream_is_resumed_exactly_on_any_number_of_ranks(
    tmp_path: Path, tokenizer: Any, context: RecordingContext, packing: Any, processes: int
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        rows = [{"text": "" if row == 2 else f"{shard}-{row} " * (row + 1)} for row in range(9)]
        write_lines(folder / f"{shard}.jsonl", rows)
    loading = LoadingSpec(loading_processes=processes, stream=True, shuffle_buffer=4)
    data = TextDataSpec(data=str(folder), packing=packing, validation_fraction=0)
    part, _ = parts_of(data, tokenizer, context, loading=loading)

    def start(rank: int = 0, ranks: int = 1, micro_batch: int = 4) -> Any:
        mesh = Mesh(device=torch.device("cpu"), rank=rank, world=ranks, data_rank=rank, data_size=ranks)
        return make_batches(part, mesh, micro_batch=micro_batch, seed=3, loading=loading)

    def ids(steps: list[list[Batch]]) -> list[list[int]]:
        return [
            [token for token in row if token != 257]
            for step in steps
            for batch in step
            for row in batch["input_ids"].tolist()
        ]

    whole = start()
    first = [whole.next_step(1) for _ in range(4)]
    state = json.loads(json.dumps(whole.state_dict()))
    rest = [whole.next_step(2) for _ in range(5)]
    assert whole.epoch() > 0
    resumed = start()
    resumed.load_state_dict(state)
    assert ids([resumed.next_step(2) for _ in range(5)]) == ids(rest)
    shared = [start(rank, 2, 2) for rank in range(2)]
    assert ids([one.next_step(1) for one in shared]) == ids(first)[:4]
    for one in shared:
        one.load_state_dict(state)
    assert ids([one.next_step(1) for one in shared]) == ids(rest)[:4]
    for one in (whole, resumed, *shared):
        one.close()


def test_every_document_of_a_stream_comes_once_an_epoch(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": f"{number:03d}"} for number in range(50)])
    loading = LoadingSpec(stream=True, shuffle_buffer=16)
    data = TextDataSpec(data=str(path), packing="off", validation_fraction=0)
    part, validation = parts_of(data, tokenizer, context, loading=loading)
    assert validation is None
    assert any("validation_data" in message for _, message in context.logs)
    batches = make_batches(part, MESH, micro_batch=5, seed=3, loading=loading)
    for epoch in range(2):
        rows = [bytes(row[:3]).decode() for _ in range(10) for row in batches.next_step(1)[0]["input_ids"].tolist()]
        assert sorted(rows) == [f"{number:03d}" for number in range(50)], epoch
        assert rows != sorted(rows)


def test_a_stream_without_any_document_says_so(tmp_path: Path, tokenizer: Any, context: RecordingContext) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": ""}])
    loading = LoadingSpec(stream=True)
    part, _ = parts_of(TextDataSpec(data=str(path), validation_fraction=0), tokenizer, context, loading=loading)
    with pytest.raises(UserError, match="streamed data are empty"):
        make_batches(part, MESH, micro_batch=1, seed=0, loading=loading).next_step(1)


def test_a_cut_of_a_token_file_keeps_its_documents() -> None:
    file = TokenFile(tokens=np.arange(10, dtype=np.uint16), starts=np.array([0, 4, 4, 9, 10], dtype=np.int64))
    middle = file.between(2, 9)
    assert middle.tokens.tolist() == list(range(2, 9))
    assert middle.starts.tolist() == [0, 2, 2, 7]
