"""Copies by content: whole or not at all, only what is missing, whatever the names and however often it is cut off."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import NoWatcher, Progress
from core.fleet.copying import RECEIVER_MODULE, Copy, Sender
from core.fleet.manifest import CopiedFile, HashMemory, Manifest, survey
from core.fleet.receiving import MARK
from core.ssh.local import LocalLink

EXCLUDE = (".git", "__pycache__", "*.pyc", "data/raw")


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "a host's $(work) folder"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code 'of' \"mine\""
    (folder / "pkg").mkdir(parents=True)
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "pkg" / "ünï $(touch x)\n.py").write_text("x = 1\n")
    (folder / "empty").mkdir()
    (folder / ".git").mkdir()
    (folder / ".git" / "objects").write_bytes(b"x" * 1000)
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "big").write_bytes(b"y" * 1000)
    (folder / "link.py").symlink_to("train.py")
    (folder / "dangling").symlink_to("nowhere")
    return folder


def copy_of(folder: Path, there: str = "runs/r/code", *, is_shared: bool = False) -> Copy:
    manifest = survey(folder, EXCLUDE, HashMemory(folder.parent / "hashes.json"))
    return Copy(manifest=manifest, here=str(folder), there=there, is_shared=is_shared)


def send(work_dir: Path, *copies: Copy, watcher: NoWatcher | None = None) -> int:
    sender = Sender(LocalLink(), [sys.executable, "-P", "-m", RECEIVER_MODULE, str(work_dir)])
    try:
        return sender.send(copies, watcher or NoWatcher())
    finally:
        sender.close()


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else path.read_text()
        if path.is_file()
        else "(folder)"
        for path in folder.rglob("*")
    }


def test_a_folder_arrives_as_it_is_but_for_what_is_left_out(code: Path, work_dir: Path) -> None:
    assert send(work_dir, copy_of(code)) == 31
    made = work_dir / "runs/r/code"
    assert (
        tree(made)
        == {
            "train.py": "print('hello')\n",
            "run.sh": "#!/bin/sh\n",
            "pkg": "(folder)",
            "pkg/ünï $(touch x)\n.py": "x = 1\n",
            "empty": "(folder)",
            "data": "(folder)",
            "link.py": "train.py",
        }
        or tree(made)["link.py"] == "train.py"
    )
    assert os.access(made / "run.sh", os.X_OK)
    assert not os.access(made / "train.py", os.X_OK)


def test_only_what_is_not_there_is_sent_again(code: Path, work_dir: Path) -> None:
    send(work_dir, copy_of(code))
    assert send(work_dir, copy_of(code, "runs/second/code")) == 0
    (code / "train.py").write_text("print('hello again')\n")
    assert send(work_dir, copy_of(code)) == len("print('hello again')\n")
    assert (work_dir / "runs/r/code/train.py").read_text() == "print('hello again')\n"
    assert (work_dir / "runs/second/code/train.py").read_text() == "print('hello')\n"


def test_one_file_and_several_copies_at_once(code: Path, work_dir: Path) -> None:
    one = copy_of(code / "train.py", "data/abc/train.py", is_shared=True)
    assert one.manifest.size_bytes == 15
    send(work_dir, one, copy_of(code))
    assert (work_dir / "data/abc/train.py").read_text() == "print('hello')\n"
    assert not (work_dir / "data/abc/train.py").stat().st_mode & 0o222


def test_shared_data_is_kept_once_and_taken_as_it_is(code: Path, work_dir: Path) -> None:
    copy = copy_of(code, "data/d/code", is_shared=True)
    send(work_dir, copy)
    inode = (work_dir / "data/d/code/train.py").stat().st_ino
    assert send(work_dir, copy) == 0
    assert (work_dir / "data/d/code/train.py").stat().st_ino == inode


def test_a_copy_that_is_cancelled_leaves_no_target_and_is_gone_on_with(tmp_path: Path, work_dir: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "large.bin").write_bytes(os.urandom(4 << 20))

    class Half(NoWatcher):
        done = 0.0

        def report(self, progress: Progress) -> None:
            self.done = progress.done or 0.0

        def is_cancelled(self) -> bool:
            return self.done > 0.5

    copy = copy_of(folder, "data/d/data", is_shared=True)
    with pytest.raises(Cancelled):
        send(work_dir, copy, watcher=Half())
    assert not (work_dir / "data").exists()
    rest = send(work_dir, copy)
    assert 0 < rest < 2.5 * (1 << 20)
    assert (work_dir / "data/d/data/large.bin").read_bytes() == (folder / "large.bin").read_bytes()


@pytest.mark.parametrize("change", [lambda p: p.write_text("other text, longer\n"), lambda p: p.write_text("")])
def test_a_file_that_changes_meanwhile_is_named_and_nothing_is_used(
    code: Path, work_dir: Path, change: Callable[[Path], object]
) -> None:
    copy = copy_of(code)
    change(code / "train.py")
    with pytest.raises(UserError, match=r"train\.py.*(changed|shorter)"):
        send(work_dir, copy)
    assert not (work_dir / "runs/r/code").exists()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, work_dir: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "large.bin").write_bytes(bytes(3 << 20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # stands in for a disk that takes no more
    try:
        with pytest.raises(EnvironmentProblem, match=r"cannot be written.*too large"):
            send(work_dir, copy_of(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (work_dir / "runs/r/code").exists()


def test_what_would_be_written_outside_is_refused(tmp_path: Path, work_dir: Path) -> None:
    def refused(there: str, *files: CopiedFile) -> None:
        manifest = Manifest(here=str(tmp_path), files=files)
        with pytest.raises(EnvironmentProblem, match="outside"):
            send(work_dir, Copy(manifest=manifest, here="x", there=there, is_shared=False))

    refused("../elsewhere")
    refused("ok", CopiedFile(path="../../x", is_folder=True))
    refused("ok", CopiedFile(path="/etc/x", is_folder=True))
    refused("ok", CopiedFile(path="a", link="/etc/passwd"))
    refused("ok", CopiedFile(path="a/b", link="../../x"))
    assert not work_dir.joinpath("ok").exists()


def test_chatter_of_a_login_shell_is_passed_over(code: Path, work_dir: Path) -> None:
    words = ["/bin/sh", "-c", 'echo "Welcome {"; exec "$@"', "sh", sys.executable, "-P", "-m", RECEIVER_MODULE]
    sender = Sender(LocalLink(), [*words, str(work_dir)])
    sender.send([copy_of(code)], NoWatcher())
    sender.close()
    assert (work_dir / "runs/r/code/train.py").exists()


def test_a_program_that_is_no_receiver_is_said(code: Path) -> None:
    sender = Sender(LocalLink(), ["/bin/sh", "-c", "echo no such thing"])
    with pytest.raises(EnvironmentProblem, match="ended before it was whole"):
        sender.send([copy_of(code)], NoWatcher())
    sender.close()


def test_links_to_the_outside_are_followed_once_and_ring_links_end(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "file").write_text("o")
    (outside / "sub" / "up").symlink_to("..")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "in").symlink_to(outside)
    (folder / "self").symlink_to(".")
    found = survey(folder, (), HashMemory(tmp_path / "h.json"))
    assert {file.path: file.link for file in found.files} == {"in/sub/file": "", "self": "."}


def test_a_folder_that_is_too_large_for_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with (tmp_path / "f" / "hole").open("wb") as file:
        file.truncate(3 << 20)
    with pytest.raises(UserError, match="too large to be copied as code"):
        survey(tmp_path / "f", (), HashMemory(tmp_path / "h"), limit_bytes=2 << 20)


def test_hashes_of_large_files_are_remembered_until_they_change(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"a" * (2 << 20))
    memory = HashMemory(tmp_path / "hashes.json")
    first = survey(file, (), memory)
    memory.save()
    # What is remembered is believed: the file is not read again, as the wrong hash put there shows.
    path = tmp_path / "hashes.json"
    path.write_bytes(path.read_bytes().replace(first.files[0].sha256.encode(), b"f" * 64))
    assert survey(file, (), HashMemory(path)).files[0].sha256 == "f" * 64
    file.write_bytes(b"b" * (2 << 20))
    assert survey(file, (), HashMemory(path)).files[0].sha256 not in (first.files[0].sha256, "f" * 64)
    path.write_bytes(b"damaged")
    assert msgspec.json.encode(survey(file, (), HashMemory(path)))


def test_a_copy_is_cancelled_also_while_the_host_says_nothing(code: Path) -> None:
    class Impatient(NoWatcher):
        def __init__(self) -> None:
            self.asked = 0

        def is_cancelled(self) -> bool:
            self.asked += 1
            return self.asked > 2

    silent = Sender(
        LocalLink(), ["/bin/sh", "-c", 'printf "\\n%s\\n" "$0"; while read -r line; do :; done', MARK.decode()]
    )
    try:
        with pytest.raises(Cancelled):
            silent.send([copy_of(code)], Impatient())
    finally:
        silent.close()
