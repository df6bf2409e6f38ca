"""What is found wrong with data before a launch, all at once, and what is advised when loading is slow."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.train.data.advice import WaitTally, loading_advice
from core.train.data.checks import check_image_data, check_stream, check_table_data, check_text_data
from core.train.specs.loading import LoadingSpec
from core.train.specs.table_data import TableDataSpec
from core.train.specs.text_data import TextDataSpec


def test_good_data_have_no_problems(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "label": 1}\n'))
    (tmp_path / "c.csv").write_text("text,label\na,b\n")
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "d.parquet")
    assert check_text_data(TextDataSpec()) == ()
    assert check_text_data(TextDataSpec(data=str(tmp_path))) == ()
    assert check_table_data(TableDataSpec(data=str(tmp_path))) == ()
    assert check_text_data(TextDataSpec(data="s3://bucket/text/*.jsonl")) == ()
    assert check_image_data("digits") == ()


def test_all_problems_of_a_text_are_told_at_once(tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    table.write_text(json.dumps({"words": "a", "talk": []}) + "\n")
    template = tmp_path / "t.jinja"
    template.write_text("{% for %}")
    problems = check_text_data(
        TextDataSpec(
            data=str(table), validation_data=str(tmp_path / "none"), messages_field="chat", chat_template=str(template)
        )
    )
    assert [problem.field for problem in problems] == [
        "data.messages_field",
        "data.validation_data",
        "data.chat_template",
    ]
    assert "It has: words, talk" in problems[0].hint
    assert all(problem.hint for problem in problems)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"", "is empty"),
        ("a.xyz", b"x", "of no kind that can be read"),
        ("a.jsonl", b"\n\n", "has no rows"),
        ("a.jsonl", b"{broken", "line 1, is no JSON object"),
        ("a.csv", b"text\n\xff\xfe\n", "is no UTF-8 text"),
        ("a.parquet", b"no", "no Parquet file"),
        ("a.jsonl.gz", b"no gzip", "cannot be unpacked"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    (problem,) = check_text_data(TextDataSpec(data=str(tmp_path / name)))
    assert problem.field == "data.data"
    assert told in problem.message
    assert name in problem.message


def test_addresses_are_looked_at_without_the_network() -> None:
    (problem,) = check_text_data(TextDataSpec(data="gopher://host/data"))
    assert "nothing is known of gopher://" in problem.message
    (problem,) = check_image_data("gs://bucket/images")
    assert "gcsfs, which is not installed" in problem.message


def test_columns_and_classes_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body,stars\na,1\n")
    problems = check_table_data(TableDataSpec(data=str(tmp_path / "a.csv"), classes=("a", "a")))
    assert [problem.field for problem in problems] == ["data.text_field", "data.label_field", "data.classes"]
    (problem,) = check_table_data(
        TableDataSpec(data=str(tmp_path / "a.csv"), text_field="body", label_field="stars", classes=("a",))
    )
    assert "one class" in problem.message


def test_a_single_image_and_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (problem,) = check_image_data(str(tmp_path / "a.png"))
    assert "single image" in problem.message
    (problem,) = check_image_data(str(tmp_path))
    assert "no class" in problem.message
    (tmp_path / "s.tar").write_bytes(b"x")
    assert check_image_data(str(tmp_path)) == ()


def test_a_stream_needs_steps_and_data_that_can_be_streamed() -> None:
    stream = LoadingSpec(stream=True)
    assert check_stream(LoadingSpec(), 0) == ()
    assert check_stream(stream, 10) == ()
    assert check_stream(stream, 0)[0].field == "steps"
    assert check_stream(stream, 10, can_stream=False)[0].field == "loading.stream"


@pytest.mark.parametrize(
    ("fraction", "loading", "cores", "told"),
    [
        (0.01, LoadingSpec(), 8, ""),
        (0.4, LoadingSpec(), 8, "40% of the time. Set loading.loading_processes to 4"),
        (0.4, LoadingSpec(), 1, "Set loading.loading_processes to 1"),
        (0.4, LoadingSpec(loading_processes=2), 8, "from 2 to 7"),
        (0.4, LoadingSpec(loading_processes=1, stream=True), 8, "loading.stream off"),
        (0.4, LoadingSpec(loading_processes=7), 8, "prefetch_batches from 2 to 8"),
        (0.4, LoadingSpec(loading_processes=7, prefetch_batches=8), 8, "All cores are busy"),
    ],
)
def test_advice_names_the_next_thing_to_change(fraction: float, loading: LoadingSpec, cores: int, told: str) -> None:
    advice = loading_advice(fraction, loading, cores)
    assert told in advice
    assert bool(advice) == bool(told)


def test_a_training_that_waited_is_told_at_its_end() -> None:
    tally = WaitTally()
    assert tally.advice(LoadingSpec(), 1) == ""
    tally.add(30.0, 30.0)  # loading processes start
    assert tally.advice(LoadingSpec(), 1) == ""
    tally.add(0.5, 0.6)
    assert tally.advice(LoadingSpec(), 1) == "", "too little to speak of"
    tally.add(5.5, 19.4)
    assert tally.advice(LoadingSpec(), 1).startswith("The training waits for data 30% of the time.")
