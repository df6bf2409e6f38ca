"""Images and their parts: real digits, folders, tars, Parquet, damaged images, splits, augmentation."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from core.contracts.errors import Cancelled, UserError
from core.train.augmentation import AugmentationSpec
from core.train.data.batches import make_batches
from core.train.data.image_set import ImageSet, load_digits_images, split_images
from core.train.data.images import WantedImages, image_parts, load_images
from core.train.engine.contracts import Mesh, SampleKey
from core.train.specs.checkpoints import CheckpointSpec
from core.train.specs.loading import LoadingSpec
from core.train.tasks.image import ImageTrainingSpec, check
from tests.helpers.recording_context import RecordingContext

MESH = Mesh(device=torch.device("cpu"))


def picture(number: int, shade: int, size: tuple[int, int] = (12, 20)) -> bytes:
    noise = np.random.default_rng(number).integers(0, 60, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise + np.uint8(shade)).save(file, "png")
    return file.getvalue()


def make_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 20)) -> Path:
    for index, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.png").write_bytes(picture(number, 90 * index, size))
    return root


def make_tar(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> Path:
    """Write a WebDataset tar."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples:
            for ending, content in files.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path / "home")


def wanted(data: Path | str, **more: Any) -> WantedImages:
    known: dict[str, Any] = {
        "image_size": 8,
        "channels": 3,
        "test_fraction": 0.25,
        "validation_fraction": 0.25,
        "split_seed": 0,
        "seed": 0,
        "augmentation": AugmentationSpec(),
    }
    return WantedImages(data=str(data), **{**known, **more})


def read(data: Path, context: RecordingContext, **more: Any) -> ImageSet:
    return load_images(wanted(data, **more), mesh=MESH, context=context)


def test_digits_are_the_whole_set_at_the_asked_size() -> None:
    images = load_digits_images(16)
    assert images.pixels.shape == (1797, 1, 16, 16)
    assert np.asarray(images.pixels).dtype == np.uint8
    assert np.bincount(images.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_parts_are_disjoint_stratified_and_depend_on_the_split_seed_only() -> None:
    images = load_digits_images(8)
    split = split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=0)
    again = split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=0)
    other = split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=1)
    parts = [split.train, split.validation, split.test]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    assert [len(part) for part in parts] == [1131, 216, 450]
    assert all(np.bincount(images.labels[part]).min() >= 0.09 * len(part) for part in parts)
    assert np.array_equal(split.test, again.test)
    assert not np.array_equal(split.test, other.test)


def test_a_folder_is_read_cut_and_labelled(tmp_path: Path, context: RecordingContext) -> None:
    folder = make_folder(tmp_path / "images", {"dark": 3, "light": 2})
    (folder / "dark" / "notes.txt").write_text("no image")
    images = read(folder, context)
    assert images.pixels.shape == (5, 3, 8, 8)
    assert images.classes == ("dark", "light")
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.pixels[:3].mean() < 60 < images.pixels[3:].mean()
    assert read(folder, context, channels=1).pixels.shape == (5, 1, 8, 8)


def test_pixels_are_decoded_once_or_as_needed_with_the_same_result(tmp_path: Path, context: RecordingContext) -> None:
    folder = make_folder(tmp_path / "images", {"a": 3, "b": 2})
    stored = read(folder, context)
    done = len(context.progresses)
    assert done
    again = read(folder, context)
    assert len(context.progresses) == done
    needed = read(folder, context, most_cached_bytes=0)
    assert len(context.progresses) == done
    everything = np.arange(5)
    assert np.array_equal(stored.pixels[everything], needed.pixels[everything])
    assert np.array_equal(again.pixels[4], needed.pixels[4])
    assert stored.pixels.shape == needed.pixels.shape


@pytest.mark.parametrize("form", ["tar", "parquet", "named"])
def test_tars_and_tables_give_the_same_images_as_a_folder(tmp_path: Path, context: RecordingContext, form: str) -> None:
    rows = [(picture(number, 90 * (number % 2)), number % 2) for number in range(6)]
    data = tmp_path / "data"
    data.mkdir()
    if form == "tar":
        for shard in range(2):
            samples = [
                (
                    f"s{number}",
                    {"png": raw, **({"cls": b"%d" % label} if number % 3 else {"json": b'{"label": %d}' % label})},
                )
                for number, (raw, label) in enumerate(rows[3 * shard : 3 * shard + 3])
            ]
            make_tar(data / f"{shard}.tar", samples)
    else:
        table = pa.Table.from_pylist([{"image": {"bytes": raw, "path": ""}, "label": label} for raw, label in rows])
        if form == "named":
            features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, data / "a.parquet", row_group_size=4)
    folder = tmp_path / "folder"
    for number, (raw, label) in enumerate(rows):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{number}.png").write_bytes(raw)
    for cached in (0, 1 << 20):
        images = read(data, context, most_cached_bytes=cached)
        assert images.classes == (("no", "yes") if form == "named" else ("0", "1"))
        assert images.labels.tolist() == [0, 1, 0, 1, 0, 1]
        expected = read(folder, context)
        assert np.array_equal(images.pixels[np.array([0, 2, 4, 1, 3, 5])], expected.pixels[np.arange(6)])


@pytest.mark.parametrize("content", [b"", b"not an image", None])
@pytest.mark.parametrize("cached", [0, 1 << 20])
def test_a_damaged_image_is_named_or_left_out(
    tmp_path: Path, context: RecordingContext, content: bytes | None, cached: int
) -> None:
    folder = make_folder(tmp_path / "images", {"a": 2, "b": 2})
    victim = folder / "b" / "000.png"
    victim.write_bytes(victim.read_bytes()[:60] if content is None else content)
    images = read(folder, context, most_cached_bytes=cached, damaged="skip")
    assert images.labels.tolist() == [0, 0, 1]
    assert any("1 of 4 images" in message and str(victim) in message for _, message in context.logs)
    with pytest.raises(UserError) as caught:
        read(folder, context, most_cached_bytes=cached).pixels[np.arange(4)]
    assert str(victim) in caught.value.message
    assert caught.value.hint


def test_an_image_damaged_in_a_loading_process_is_named(tmp_path: Path, context: RecordingContext) -> None:
    folder = make_folder(tmp_path / "images", {"a": 16, "b": 16})
    for victim in (folder / "b").iterdir():
        victim.write_bytes(b"no")
    parts = image_parts(wanted(folder, most_cached_bytes=0), mesh=MESH, context=context)
    loading = LoadingSpec(loading_processes=1)
    batches = make_batches(parts.training, MESH, micro_batch=16, seed=0, loading=loading)
    with pytest.raises(UserError, match=r"images/b/0.*damaged or no image"):
        batches.next_step(1)
    batches.close()


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([("a", {"png": b"x"})], "a.png: its label is missing"),
        ([("a", {"png": b"x", "cls": b"-1 "}), ("b", {"png": b"x", "json": b"{"})], "b.json is no JSON object"),
        ([("a", {"txt": b"x"})], "no images"),
    ],
)
def test_what_is_wrong_in_a_tar_is_named(tmp_path: Path, context: RecordingContext, samples: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        read(make_tar(tmp_path / "a.tar", samples), context)
    assert told in caught.value.message
    assert "a.tar" in caught.value.message


def test_other_wrong_sources_are_named(tmp_path: Path, context: RecordingContext) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    pq.write_table(pa.table({"picture": [b"x"], "label": [0]}), tmp_path / "column.parquet")
    names = {"info": {"features": {"label": {"names": ["no", "yes"]}}}}
    beyond = pa.table({"image": [b"x", b"y"], "label": [0, 7]})
    pq.write_table(beyond.replace_schema_metadata({"huggingface": json.dumps(names)}), tmp_path / "range.parquet")
    (tmp_path / "empty").mkdir()
    for name, told in {
        "bad.tar": "damaged or no tar file",
        "bad.parquet": "damaged or no Parquet file",
        "column.parquet": "no column 'image' (it has: picture, label)",
        "range.parquet": "row 2: the label '7' is none of the 2 classes (no, yes)",
        "empty": "no files",
        "nowhere": "There is no",
    }.items():
        with pytest.raises(UserError) as caught:
            read(tmp_path / name, context)
        assert told in caught.value.message


def test_reading_ends_early_when_told_to(tmp_path: Path, context: RecordingContext) -> None:
    folder = make_folder(tmp_path / "images", {"a": 40, "b": 40})
    context.stop_when = lambda: len(context.progresses) > 1
    with pytest.raises(Cancelled):
        read(folder, context)
    assert [round(done, 1) for done, _ in context.progresses] == [0.0, 0.8]


def test_a_class_with_too_few_images_is_named(tmp_path: Path, context: RecordingContext) -> None:
    images = read(make_folder(tmp_path / "images", {"many": 12, "few": 3}), context)
    with pytest.raises(UserError, match=r"few \(3\)"):
        split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=0)


def test_augmentation_belongs_to_the_use_of_an_image_whoever_loads_it(
    tmp_path: Path, context: RecordingContext
) -> None:
    folder = make_folder(tmp_path / "images", {"a": 12, "b": 12})
    parts = image_parts(wanted(folder), mesh=MESH, context=context)

    def two_epochs(processes: int) -> tuple[torch.Tensor, torch.Tensor]:
        loading = LoadingSpec(loading_processes=processes)
        count = len(parts.split.train)
        batches = make_batches(parts.training, MESH, micro_batch=count, seed=0, loading=loading)
        found = [batches.next_step(1)[0] for _ in range(2)]
        batches.close()
        return found[0]["pixels"], found[1]["pixels"]

    first, second = two_epochs(0)
    assert first.dtype == torch.float32
    assert 0 <= first.min() < first.max() <= 1
    assert first.sum() != pytest.approx(second.sum())
    loaded = two_epochs(2)
    assert torch.equal(first, loaded[0])
    assert torch.equal(second, loaded[1])
    plain = parts.validation.collate([parts.validation.samples[SampleKey(index, 0)] for index in range(2)])
    assert plain["pixels"].dtype == torch.uint8


def test_check_names_every_problem_at_once(tmp_path: Path) -> None:
    spec = ImageTrainingSpec(
        data=str(tmp_path / "nowhere"), stages=5, image_size=8, test_fraction=0.5, validation_fraction=0.4
    )
    problems = check(spec)
    assert [problem.field for problem in problems] == ["data", "stages", "test_fraction"]
    assert all(problem.hint for problem in problems)


@pytest.mark.parametrize(
    ("counts", "words"),
    [({}, "no class"), ({"only": 9}, "1 class"), ({"a": 9, "b": 2}, r"b (2)")],
)
def test_check_of_a_folder(tmp_path: Path, counts: dict[str, int], words: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    make_folder(folder, counts)
    (problem,) = check(ImageTrainingSpec(data=str(folder)))
    assert words in problem.message


def test_check_says_when_the_disk_is_too_small_for_the_checkpoints() -> None:
    (problem,) = check(
        ImageTrainingSpec(width=512, stages=5, image_size=64, checkpoints=CheckpointSpec(keep_last=1000))
    )
    assert "MiB free" in problem.message
