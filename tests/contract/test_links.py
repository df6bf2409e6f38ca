"""Every link to a host against the same suite: over SSH to a real sshd, and to this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import NobodyToAsk
from core.contracts.links import Link
from core.security.secrets import FileSecrets
from core.ssh import channels
from core.ssh.connection import connect
from core.ssh.local import LocalLink
from tests.helpers.ssh_server import SshServer, opened_ssh_server
from tests.helpers.waiting import wait_for

HOSTILE = [
    "it's",
    'a "quote"',
    "$(touch owned)",
    "`id`",
    "a\nb",
    "back\\slash\\n",
    "!history",
    "*",
    "~",
    "-rf",
    "é☃",
    "",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with opened_ssh_server(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(params=["ssh", "local"])
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Link]:
    opened: Link
    if request.param == "local":
        opened = LocalLink("box")
    else:
        server: SshServer = request.getfixturevalue("server")
        secrets = FileSecrets(tmp_path / "secrets.json")
        opened = connect(server.record(), asker=NobodyToAsk(), secrets=secrets, known_hosts=server.known_hosts)
    yield opened
    opened.close()


@pytest.fixture
def there(tmp_path: Path) -> str:
    """A folder of the host whose own name is hostile."""
    folder = tmp_path / 'it\'s $(x) "there"\n!'
    folder.mkdir()
    return str(folder)


def test_a_command_gives_its_outputs_and_status(link: Link) -> None:
    done = link.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert link.name == "box"


def test_no_word_is_interpreted(link: Link, there: str) -> None:
    done = link.run(["printf", "%s\\0", *HOSTILE], cwd=there)
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE
    assert list(Path(there).iterdir()) == []


def test_no_value_of_the_environment_is_interpreted(link: Link) -> None:
    env = {f"PH_{index}": value for index, value in enumerate(HOSTILE)}
    words = [f"PH_{index}" for index in range(len(HOSTILE))]
    done = link.run(
        ["/bin/sh", "-c", 'for n in "$@"; do eval "printf \'%s\\\\0\' \\"\\$$n\\""; done', "sh", *words], env=env
    )
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE


def test_the_folder_of_a_command_may_have_any_name(link: Link, there: str) -> None:
    done = link.run(["/bin/sh", "-c", 'printf %s "$PWD"'], cwd=there)
    assert done.stdout.decode() == there


def test_a_nul_is_refused_before_anything_runs(link: Link) -> None:
    with pytest.raises(UserError, match="NUL"):
        link.run(["echo", "a\0b"])


def test_a_missing_program_is_a_status_not_an_exception(link: Link) -> None:
    assert link.run(["no-such-program-here"]).code == 127


def test_a_command_killed_by_a_signal_has_no_status(link: Link) -> None:
    assert link.run(["/bin/sh", "-c", "kill -9 $$"]).code is None


def test_large_outputs_on_both_channels_end(link: Link) -> None:
    script = "head -c 6000000 /dev/zero; head -c 6000000 /dev/zero >&2; echo end >&2"
    done = link.run(["/bin/sh", "-c", script], limit_bytes=1000)
    assert done.code == 0
    assert (len(done.stdout), len(done.stderr)) == (1000, 1000)


def test_large_input_comes_back_unchanged(link: Link) -> None:
    data = os.urandom(3_000_000)
    assert link.run(["cat"], stdin=data).stdout == data


def test_input_that_nobody_reads_does_not_hold_up_the_end(link: Link) -> None:
    assert link.run(["true"], stdin=b"x" * 5_000_000).code == 0


def test_a_command_that_takes_too_long_is_let_go_of(link: Link) -> None:
    began = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="longer than"):
        link.run(["sleep", "60"], timeout_s=0.5)
    assert time.monotonic() - began < 10
    assert link.run(["true"]).code == 0


def test_a_child_left_in_the_background_does_not_hold_up_the_end(link: Link) -> None:
    began = time.monotonic()
    done = link.run(["/bin/sh", "-c", "sleep 30 & echo $!"])
    assert done.code == 0
    assert time.monotonic() - began < 15
    link.run(["kill", done.stdout.decode().strip()])


def test_a_program_answers_line_by_line(link: Link) -> None:
    process = link.start(["cat"])
    for line in (b"one\n", b"two\n"):
        process.write(line)
        assert process.read(100, timeout_s=20) == line
    with pytest.raises(TimeoutError):
        process.read(100, timeout_s=0.1)
    assert process.code is None
    process.close_input()
    assert process.read(100, timeout_s=20) == b""
    assert wait_for(lambda: process.code is not None, "cat to end")
    assert process.code == 0
    process.close()


def test_a_program_reads_and_writes_at_once(link: Link) -> None:
    process = link.start(["cat"])
    data = os.urandom(8_000_000)
    writer = threading.Thread(target=lambda: (process.write(data), process.close_input()))
    writer.start()
    read = bytearray()
    while block := process.read(1 << 16, timeout_s=30):
        read += block
    writer.join()
    assert bytes(read) == data
    process.close()


def test_what_a_program_says_on_stderr_is_dropped(link: Link) -> None:
    process = link.start(["/bin/sh", "-c", "head -c 5000000 /dev/zero >&2; echo end"])
    assert process.read(100, timeout_s=30) == b"end\n"
    process.close()


def test_a_program_that_is_let_go_of_sees_the_end_of_its_input(link: Link, there: str) -> None:
    process = link.start(["/bin/sh", "-c", "echo up; cat; echo told > told"], cwd=there)
    assert process.read(100, timeout_s=20) == b"up\n"
    process.close()
    wait_for((Path(there) / "told").exists, "the program to be told")


def test_writing_to_a_program_that_ended_is_an_error(link: Link) -> None:
    process = link.start(["true"])
    assert process.read(10, timeout_s=20) == b""

    def refused() -> bool:
        try:
            process.write(b"x" * 100_000)
        except EnvironmentProblem:
            return True
        return False

    wait_for(refused, "the write to be refused")
    process.close()


def test_many_commands_at_once(link: Link) -> None:
    results: list[bytes] = []

    def run(number: int) -> None:
        results.append(link.run(["/bin/sh", "-c", f"sleep 0.1; echo {number}"], timeout_s=50).stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(text) for text in results) == list(range(20))


def test_home_is_absolute(link: Link) -> None:
    assert link.home().startswith("/")


@pytest.mark.parametrize("name", [*HOSTILE[:-1], "\udcff\udcfe not utf-8", "e" * 200])
def test_files_may_have_any_name(link: Link, there: str, name: str) -> None:
    path = f"{there}/{name}"
    link.write(path, b"text", mode=0o600)
    found = link.stat(path)
    assert found is not None
    assert (found.name, found.size, found.is_dir, found.mode) == (name, 4, False, 0o600)
    assert [entry.name for entry in link.listdir(there)] == [name]
    assert link.read(path) == b"text"
    link.remove(path)
    assert link.stat(path) is None
    assert link.listdir(there) == []


def test_what_is_not_there(link: Link, there: str) -> None:
    assert link.stat(f"{there}/nothing") is None
    for missing in (lambda: link.read(f"{there}/nothing"), lambda: link.listdir(f"{there}/nothing")):
        with pytest.raises(FileNotFoundError) as caught:
            missing()
        assert caught.value.errno == errno.ENOENT
    link.remove(f"{there}/nothing")


def test_folders_are_made_and_removed_with_all_in_them(link: Link, there: str) -> None:
    link.makedirs(f"{there}/a/b b/c")
    link.makedirs(f"{there}/a/b b/c")
    link.write(f"{there}/a/b b/c/file", b"")
    (entry,) = link.listdir(f"{there}/a")
    assert (entry.name, entry.is_dir) == ("b b", True)
    link.remove(f"{there}/a")
    assert link.stat(f"{there}/a") is None


def test_a_link_to_a_folder_is_removed_without_what_it_points_to(link: Link, there: str) -> None:
    link.write(f"{there}/kept", b"1")
    (Path(there) / "pointer").symlink_to(there)
    (Path(there) / "nowhere").symlink_to("/no/such/place")
    shown = {entry.name: entry.is_dir for entry in link.listdir(there)}
    assert shown == {"kept": False, "pointer": True, "nowhere": False}
    link.remove(f"{there}/pointer")
    assert link.read(f"{there}/kept") == b"1"


@pytest.mark.parametrize("path", ["/", "", ".", "~", "//"])
def test_a_whole_disk_is_never_removed(link: Link, path: str) -> None:
    with pytest.raises(UserError):
        link.remove(path)


def test_a_file_is_read_from_an_offset(link: Link, there: str) -> None:
    data = os.urandom(300_000)
    link.write(f"{there}/data", data)
    assert link.read(f"{there}/data", 0, 1 << 20) == data
    assert link.read(f"{there}/data", 100_000, 150_000) == data[100_000:250_000]
    assert link.read(f"{there}/data", 299_990, 1 << 20) == data[-10:]
    assert link.read(f"{there}/data", 400_000, 1 << 20) == b""
    assert link.read(f"{there}/data", 400_000, 10) == b""


def test_a_file_is_replaced_as_a_whole(link: Link, there: str) -> None:
    link.write(f"{there}/data", b"a long first text", mode=0o640)
    link.write(f"{there}/data", b"short", mode=0o640)
    assert link.read(f"{there}/data") == b"short"
    assert [entry.name for entry in link.listdir(there)] == ["data"]


def test_writing_into_a_missing_folder_is_told(link: Link, there: str) -> None:
    with pytest.raises((EnvironmentProblem, FileNotFoundError)):
        link.write(f"{there}/no/file", b"x")


def test_writing_over_a_folder_is_told_and_leaves_nothing(link: Link, there: str) -> None:
    link.makedirs(f"{there}/folder/inner")
    with pytest.raises(EnvironmentProblem):
        link.write(f"{there}/folder", b"x")
    assert [entry.name for entry in link.listdir(there)] == ["folder"]


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_a_copy_goes_there_and_back(link: Link, there: str, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source file"
    source.write_bytes(os.urandom(size))
    source.chmod(0o750)
    progress: list[int] = []
    link.put(str(source), f"{there}/copy", progress.append)
    assert progress[-1] == size
    assert progress == sorted(progress)
    found = link.stat(f"{there}/copy")
    assert found is not None
    assert (found.size, found.mode) == (size, 0o750)
    progress.clear()
    link.get(f"{there}/copy", str(tmp_path / "back"), progress.append)
    assert progress[-1] == size
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert [entry.name for entry in link.listdir(there)] == ["copy"]
    assert sorted(p.name for p in tmp_path.glob(".*part")) == []


class Enough(Exception):
    pass


@pytest.mark.parametrize("way", ["put", "get"])
def test_a_copy_that_was_ended_is_gone_on_with_and_is_whole(link: Link, there: str, tmp_path: Path, way: str) -> None:
    (tmp_path / "source").write_bytes(os.urandom(4_000_000))
    (Path(there) / "source").write_bytes((tmp_path / "source").read_bytes())

    def copy(on_bytes: object) -> None:
        if way == "put":
            link.put(str(tmp_path / "source"), f"{there}/copy", on_bytes)  # type: ignore[arg-type]
        else:
            link.get(f"{there}/source", str(tmp_path / "copy"), on_bytes)  # type: ignore[arg-type]

    def stop_at_half(done: int) -> None:
        if done > 2_000_000:
            raise Enough

    result = Path(there) / "copy" if way == "put" else tmp_path / "copy"
    with pytest.raises(Enough):
        copy(stop_at_half)
    assert not result.exists()
    progress: list[int] = []
    copy(progress.append)
    assert result.read_bytes() == (tmp_path / "source").read_bytes()
    if not isinstance(link, LocalLink):
        assert progress[0] > 500_000, "it began anew"


def test_a_link_that_was_closed_says_cancelled(link: Link, there: str) -> None:
    assert link.is_alive()
    assert link.probe() >= 0
    link.close()
    link.close()
    assert not link.is_alive()
    for use in (
        lambda: link.run(["true"]),
        lambda: link.start(["true"]),
        lambda: link.stat(there),
        lambda: link.read(f"{there}/x"),
        link.probe,
    ):
        with pytest.raises(Cancelled):
            use()


def test_closing_ends_who_waits(link: Link, tmp_path: Path) -> None:
    raised: list[BaseException] = []

    started = tmp_path / "started"

    def wait() -> None:
        try:
            link.run(["sh", "-c", ': > "$0"; sleep 60', str(started)], timeout_s=50)
        except (Cancelled, EnvironmentProblem) as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(started.exists, "the command to run")
    began = time.monotonic()
    link.close()
    thread.join(20)
    assert time.monotonic() - began < 10
    assert [type(error) for error in raised] == [Cancelled]


def test_closing_ends_who_reads(link: Link) -> None:
    process = link.start(["sleep", "60"])
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(process.read(10)))
    thread.start()
    time.sleep(0.2)
    link.close()
    thread.join(20)
    assert read == [b""]
    process.close()


def test_a_copy_is_verified_by_its_hash(link: Link, there: str, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "source").write_bytes(data)
    link.put(str(tmp_path / "source"), f"{there}/copy")
    told = link.run(["sha256sum", f"{there}/copy"]).stdout.decode().lstrip("\\").split()[0]
    assert told == hashlib.sha256(data).hexdigest()


def test_a_program_that_takes_nothing_in_is_not_written_to_for_ever(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "STUCK_S", 0.3)
    secrets = FileSecrets(tmp_path / "secrets.json")
    link = connect(server.record(), asker=NobodyToAsk(), secrets=secrets, known_hosts=server.known_hosts)
    program = link.start(["sleep", "60"])
    try:
        with pytest.raises(TimeoutError):
            program.read(1, timeout_s=0.1)
        with pytest.raises(EnvironmentProblem, match="does not answer"):
            program.write(bytes(32 << 20))
    finally:
        program.close()
        link.close()
