"""Labelled texts: classes, stratified parts, padding, and the labels that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.contracts.errors import UserError
from core.train.data.labelled_text import LabelledTextParts, labelled_text_parts
from core.train.engine.contracts import Batch, DataPart, Mesh, SampleKey
from core.train.models.tokenizer import byte_tokenizer
from core.train.specs.table_data import TableDataSpec
from tests.helpers.recording_context import RecordingContext

MESH = Mesh(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path / "home")


def write(path: Path, rows: list[tuple[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


def parts_of(data: TableDataSpec, tokenizer: Any, context: RecordingContext, **more: Any) -> LabelledTextParts:
    return labelled_text_parts(
        data, tokenizer, length=8, cache=context.home / "cache", mesh=MESH, context=context, **more
    )


def batch_of(part: DataPart) -> Batch:
    return part.collate([part.samples[SampleKey(number, 0)] for number in range(len(part.samples))])


REVIEWS = [(f"text {number}", "good" if number % 4 else "bad") for number in range(80)]


def test_classes_are_sorted_and_parts_stratified_whatever_the_order(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    data = TableDataSpec(data=str(write(tmp_path / "a.jsonl", REVIEWS)), validation_fraction=0.25)
    parts = parts_of(data, tokenizer, context)
    assert parts.classes == ("bad", "good")
    assert parts.validation is not None
    held = batch_of(parts.validation)
    assert np.bincount(held["labels"]).tolist() == [5, 15]
    assert np.bincount(batch_of(parts.training)["labels"]).tolist() == [15, 45]
    assert "bad 15, good 45" in context.logs[0][1]
    turned = TableDataSpec(data=str(write(tmp_path / "b.jsonl", REVIEWS[::-1])), validation_fraction=0.25)
    other = parts_of(turned, tokenizer, context).validation
    assert other is not None
    assert sorted(batch_of(other)["input_ids"].tolist()) == sorted(held["input_ids"].tolist())


def test_a_batch_is_filled_up_to_its_longest_text(tmp_path: Path, tokenizer: Any, context: RecordingContext) -> None:
    rows = [("ab", 1), ("abcd", 0), ("a very long text", 10)]
    data = TableDataSpec(data=str(write(tmp_path / "a.jsonl", rows)), validation_fraction=0)
    parts = parts_of(data, tokenizer, context)
    batch = batch_of(parts.training)
    assert parts.validation is None
    assert parts.classes == ("0", "1", "10")
    assert batch["labels"].tolist() == [1, 0, 2]
    assert batch["input_ids"][0].tolist() == [97, 98, *[257] * 6]
    assert batch["attention_mask"].sum(1).tolist() == [2, 4, 8]
    assert any("1 texts fill 8 tokens" in message for _, message in context.logs)


def test_validation_rows_of_another_table_have_the_same_classes(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    other = write(tmp_path / "b.jsonl", [("x", "good"), ("y", "good")])
    data = TableDataSpec(data=str(write(tmp_path / "a.jsonl", REVIEWS)), validation_data=str(other))
    parts = parts_of(data, tokenizer, context)
    assert parts.validation is not None
    assert batch_of(parts.validation)["labels"].tolist() == [1, 1]
    assert len(parts.training.samples) == 80
    write(other, [("x", "good"), ("y", "ugly")])
    with pytest.raises(UserError, match=r"b\.jsonl, row 2: the label 'ugly' is none of the 2 classes"):
        parts_of(data, tokenizer, context)


@pytest.mark.parametrize(
    ("rows", "classes", "told"),
    [
        ([("a", 0), ("b", None)], (), "row 2: its label is missing"),
        ([("a", 0), ("b", -1)], (), "row 2: its label is -1, which is no class"),
        ([("a", 0), ("b", 0.5)], (), "row 2: its label is 0.5"),
        ([("a", 0), ("b", 2)], ("no", "yes"), "row 2: the label '2' is none of the 2 classes (no, yes)"),
        ([("a", "yes"), ("b", "maybe")], ("no", "yes"), "row 2: the label 'maybe' is none"),
        ([("a", 0), ("b", 0)], (), "1 class only"),
        ([(5, 0), ("b", 1)], (), "row 1: 'text' is no text"),
        ([], (), "no rows"),
    ],
)
def test_a_wrong_label_is_named_with_its_row(
    tmp_path: Path, tokenizer: Any, context: RecordingContext, rows: Any, classes: tuple[str, ...], told: str
) -> None:
    data = TableDataSpec(data=str(write(tmp_path / "a.jsonl", rows)), classes=classes)
    with pytest.raises(UserError) as caught:
        parts_of(data, tokenizer, context)
    assert told in caught.value.message
    assert caught.value.hint


def test_given_classes_fix_the_order_and_take_numbers(
    tmp_path: Path, tokenizer: Any, context: RecordingContext
) -> None:
    path = write(tmp_path / "a.jsonl", [("a", "yes"), ("b", 0), ("c", "no")])
    data = TableDataSpec(data=str(path), classes=("yes", "no"), validation_fraction=0)
    assert batch_of(parts_of(data, tokenizer, context).training)["labels"].tolist() == [0, 0, 1]


def test_a_token_beyond_the_vocabulary_names_the_row(tmp_path: Path, tokenizer: Any, context: RecordingContext) -> None:
    data = TableDataSpec(data=str(write(tmp_path / "a.jsonl", [("ab", 0), ("zz", 1)])))
    with pytest.raises(UserError, match=r"row 2: the tokenizer gives the token 122, the model knows 100"):
        parts_of(data, tokenizer, context, vocabulary=100)
