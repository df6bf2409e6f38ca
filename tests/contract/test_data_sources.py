"""Every place that data come from, the same way: local files, an S3 store, WebHDFS; and what is said when one fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.augmentation import AugmentationSpec
from core.train.data.batches import make_batches
from core.train.data.image_set import ImageSet
from core.train.data.images import WantedImages, load_images
from core.train.data.labelled_text import labelled_text_parts
from core.train.data.sources import list_sources, opened, read_bytes
from core.train.data.text import language_parts
from core.train.engine.contracts import Mesh
from core.train.models.tokenizer import byte_tokenizer
from core.train.specs.loading import LoadingSpec
from core.train.specs.table_data import TableDataSpec
from core.train.specs.text_data import TextDataSpec
from tests.helpers.hdfs_server import hdfs_server
from tests.helpers.recording_context import RecordingContext
from tests.helpers.waiting import wait_for
from tests.unit.test_train_image_data import make_tar, picture

MESH = Mesh(device=torch.device("cpu"))
ROWS = [{"text": f"document {number}", "label": number % 2} for number in range(12)]
FILES = {
    "text/a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS[:7]).encode(),
    "text/b.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS[7:]).encode(),
    "text/ignored.bin": b"x",
}


@dataclass
class Place:
    """Where the files are: the address of the folder that holds them, and what to take away to make it fail."""

    root: str
    missing: str
    unreachable: str = ""
    forbid: Callable[[], None] | None = None


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Run moto's S3 server in a process of its own."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: server.poll() is not None or _answers(f"{url}/moto-api/data.json"), "the S3 server")
            yield url
        finally:
            server.terminate()


def _forget_instances() -> None:
    from fsspec.implementations.webhdfs import WebHDFS
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    WebHDFS.clear_instance_cache()


@pytest.fixture
def s3(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    from s3fs import S3FileSystem

    settings = {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    _forget_instances()
    system = S3FileSystem()
    if not system.exists("pilothouse-data"):
        system.mkdir("pilothouse-data")
    for name, content in FILES.items():
        system.pipe_file(f"pilothouse-data/{name}", content)

    def forbid() -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        _forget_instances()

    yield Place(root="s3://pilothouse-data", missing="s3://no-such-bucket/text", forbid=forbid)
    _forget_instances()


@pytest.fixture
def hdfs() -> Iterator[Place]:
    _forget_instances()
    with hdfs_server({f"/data/{name}": content for name, content in FILES.items()}) as server:
        unreachable = f"webhdfs://127.0.0.1:{_free_port()}/data"
        yield Place(f"{server.url}/data", f"{server.url}/nothing", unreachable, server.forbid)
    _forget_instances()


@pytest.fixture
def local(tmp_path: Path) -> Place:
    for name, content in FILES.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    return Place(str(tmp_path / "data"), str(tmp_path / "nothing"))


@pytest.fixture(params=["local", "s3", "hdfs"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path / "home")


SUFFIXES = frozenset({".jsonl"})


def test_files_are_listed_sorted_and_read(place: Place) -> None:
    sources = list_sources(f"{place.root}/text", SUFFIXES)
    assert [source.name for source in sources] == [f"{place.root}/text/a.jsonl", f"{place.root}/text/b.jsonl"]
    assert [source.size_bytes for source in sources] == [len(FILES["text/a.jsonl"]), len(FILES["text/b.jsonl"])]
    assert all(source.version for source in sources)
    with opened(sources[0]) as file:
        assert file.read() == FILES["text/a.jsonl"]
    assert read_bytes(sources[1], 5, 20) == FILES["text/b.jsonl"][5:20]
    (single,) = list_sources(f"{place.root}/text/a.jsonl", SUFFIXES)
    assert single.name.endswith("/text/a.jsonl")


@pytest.mark.parametrize("stream", [False, True])
def test_texts_are_trained_on(place: Place, context: RecordingContext, stream: bool) -> None:
    loading = LoadingSpec(stream=stream, loading_processes=1, shuffle_buffer=5)
    data = TextDataSpec(data=f"{place.root}/text", packing="off", validation_fraction=0)
    part, _ = language_parts(
        data, byte_tokenizer(), length=32, cache=context.home / "c", mesh=MESH, context=context, seed=0, loading=loading
    )
    batches = make_batches(part, MESH, micro_batch=4, seed=0, loading=loading)
    rows = [row for _ in range(3) for row in batches.next_step(1)[0]["input_ids"].tolist()]
    batches.close()
    assert sorted(bytes(token for token in row if token < 256).decode() for row in rows) == sorted(
        row["text"] for row in ROWS
    )


def test_labelled_tables_are_read(place: Place, context: RecordingContext) -> None:
    parts = labelled_text_parts(
        TableDataSpec(data=f"{place.root}/text"),
        byte_tokenizer(),
        length=32,
        cache=context.home / "c",
        mesh=MESH,
        context=context,
    )
    assert parts.classes == ("0", "1")
    assert len(parts.training.samples) + len(parts.validation.samples if parts.validation else []) == 12


def test_what_is_not_there_is_named(place: Place) -> None:
    with pytest.raises(UserError) as caught:
        list_sources(place.missing, SUFFIXES)
    assert caught.value.message == f"There is no {place.missing}."
    with pytest.raises(UserError, match="no files in"):
        list_sources(f"{place.root}/text", frozenset({".xyz"}))


@pytest.mark.parametrize("name", ["s3", "hdfs"])
def test_without_credentials_the_remedy_is_said(request: pytest.FixtureRequest, name: str) -> None:
    place: Place = request.getfixturevalue(name)
    assert place.forbid
    place.forbid()
    with pytest.raises(EnvironmentProblem, match="without valid credentials") as caught:
        list_sources(f"{place.root}/text", SUFFIXES)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_hosts_that_do_not_answer_are_told(hdfs: Place, s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentProblem, match=r"webhdfs://127.* cannot be reached"):
        list_sources(hdfs.unreachable, SUFFIXES)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    _forget_instances()
    with pytest.raises(EnvironmentProblem, match=r"s3://pilothouse-data/text cannot be reached") as caught:
        list_sources(f"{s3.root}/text", SUFFIXES)
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_hdfs_without_its_library_points_to_webhdfs() -> None:
    if "HADOOP_HOME" in os.environ or "ARROW_LIBHDFS_DIR" in os.environ:
        pytest.skip("Hadoop's client library may be installed here")
    with pytest.raises(EnvironmentProblem) as caught:
        list_sources("hdfs://127.0.0.1:1/data", SUFFIXES)
    assert "webhdfs://" in caught.value.hint


def test_images_of_a_store_are_read_from_folders_and_tars(s3: Place, context: RecordingContext, tmp_path: Path) -> None:
    from s3fs import S3FileSystem

    pictures = {f"{label}/{number}": picture(number, 90 * label) for label in (0, 1) for number in range(2)}
    for name, content in pictures.items():
        S3FileSystem().pipe_file(f"pilothouse-data/images/{name}.png", content)
    samples = [(name.replace("/", "-"), {"png": raw, "cls": name[:1].encode()}) for name, raw in pictures.items()]
    S3FileSystem().put_file(str(make_tar(tmp_path / "s.tar", samples)), "pilothouse-data/tars/s.tar")

    def read(data: str, cached: int) -> ImageSet:
        wanted = WantedImages(
            data=data,
            image_size=8,
            channels=3,
            test_fraction=0.25,
            validation_fraction=0.25,
            split_seed=0,
            seed=0,
            augmentation=AugmentationSpec(),
            most_cached_bytes=cached,
        )
        return load_images(wanted, mesh=MESH, context=context)

    for cached in (0, 1 << 20):
        folder, tars = read(f"{s3.root}/images", cached), read(f"{s3.root}/tars", cached)
        assert folder.labels.tolist() == tars.labels.tolist() == [0, 0, 1, 1]
        assert (folder.pixels[:] == tars.pixels[:]).all()
