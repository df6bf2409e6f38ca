"""Images and their parts: real digits, image folders, damaged images, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.contracts.errors import UserError
from core.train import image_data
from core.train.specs.checkpoints import CheckpointSpec
from core.train.tasks.image import ImageTrainingSpec, check


def make_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 20)) -> Path:
    for index, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 60, (*size, 3), dtype=np.uint8)
            Image.fromarray(noise + np.uint8(90 * index)).save(root / name / f"{number:03d}.png")
    return root


def read(folder: Path, cache: Path, channels: int = 3) -> image_data.ImageSet:
    return image_data.load_folder_images(
        folder, image_size=8, channels=channels, cache=cache, keep_going=lambda done: done >= 0
    )


def test_digits_are_the_whole_set_at_the_asked_size() -> None:
    images = image_data.load_digits_images(16)
    assert images.pixels.shape == (1797, 1, 16, 16)
    assert images.pixels.dtype == np.uint8
    assert np.bincount(images.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_parts_are_disjoint_stratified_and_depend_on_the_split_seed_only() -> None:
    images = image_data.load_digits_images(8)
    split = image_data.split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=0)
    again = image_data.split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=0)
    other = image_data.split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=1)
    parts = [split.train, split.validation, split.test]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    assert [len(part) for part in parts] == [1131, 216, 450]
    assert all(np.bincount(images.labels[part]).min() >= 0.09 * len(part) for part in parts)
    assert np.array_equal(split.test, again.test)
    assert not np.array_equal(split.test, other.test)


def test_a_folder_is_read_cut_and_labelled(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"dark": 3, "light": 2})
    (folder / "dark" / "notes.txt").write_text("no image")
    images = read(folder, tmp_path / "cache")
    assert images.pixels.shape == (5, 3, 8, 8)
    assert images.classes == ("dark", "light")
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.pixels[:3].mean() < 60 < images.pixels[3:].mean()
    assert read(folder, tmp_path / "grey", channels=1).pixels.shape == (5, 1, 8, 8)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_damaged_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    folder = make_folder(tmp_path / "images", {"a": 2, "b": 2})
    victim = folder / "b" / "001.png"
    victim.write_bytes(victim.read_bytes()[:60] if content is None else content)
    with pytest.raises(UserError) as caught:
        read(folder, tmp_path / "cache")
    assert str(victim) in caught.value.message
    assert caught.value.hint


def test_reading_ends_early_when_told_to(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"a": 20, "b": 20})
    told: list[float] = []

    def keep_going(done: float) -> bool:
        told.append(done)
        return len(told) < 2

    image_data.load_folder_images(folder, image_size=8, channels=3, cache=tmp_path / "cache", keep_going=keep_going)
    assert told == [0.0, 0.4]


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    images = read(make_folder(tmp_path / "images", {"many": 12, "few": 3}), tmp_path / "cache")
    with pytest.raises(UserError, match=r"few \(3\)"):
        image_data.split_images(images, test_fraction=0.25, validation_fraction=0.12, seed=0)


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
