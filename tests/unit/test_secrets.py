"""Kept secrets: in the encrypted file of systems without a keyring, and which of the two is taken."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as FailKeyring

from core.contracts.errors import EnvironmentProblem
from core.security.secrets import FileSecrets, KeyringSecrets, Secrets

HOSTILE = 'it\'s "a" $(secret)\n\0é'


class SessionKeyring(KeyringBackend):
    """A keyring that lasts as long as the process."""

    priority = 9  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise keyring.errors.KeyringLocked
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked:
            raise keyring.errors.KeyringLocked
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError


@pytest.fixture
def session_keyring() -> object:
    before = keyring.get_keyring()
    backend = SessionKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


@pytest.fixture
def no_keyring() -> object:
    before = keyring.get_keyring()
    keyring.set_keyring(FailKeyring())
    yield None
    keyring.set_keyring(before)


@pytest.fixture(params=["keyring", "file"])
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> Secrets:
    request.getfixturevalue("session_keyring" if request.param == "keyring" else "no_keyring")
    return Secrets.open(tmp_path / "home" / "secrets.json")


def test_a_secret_is_kept_replaced_and_forgotten(secrets: Secrets) -> None:
    assert secrets.get("password", "me@host") is None
    secrets.put("password", "me@host", "first")
    secrets.put("password", "me@host", HOSTILE)
    secrets.put("passphrase", "me@host", "other")
    assert secrets.get("password", "me@host") == HOSTILE
    secrets.forget("password", "me@host")
    secrets.forget("password", "me@host")
    assert secrets.get("password", "me@host") is None
    assert secrets.get("passphrase", "me@host") == "other"


def test_a_usable_keyring_is_preferred(session_keyring: object, tmp_path: Path) -> None:
    secrets = Secrets.open(tmp_path / "secrets.json")
    assert isinstance(secrets, KeyringSecrets)
    secrets.put("password", "a", "b")
    assert list(tmp_path.glob("secrets*")) == []
    assert "keyring" in secrets.where


def test_a_locked_keyring_asks_again_and_says_so(session_keyring: SessionKeyring, tmp_path: Path) -> None:
    secrets = Secrets.open(tmp_path / "secrets.json")
    session_keyring.is_locked = True
    assert secrets.get("password", "a") is None
    with pytest.raises(EnvironmentProblem, match="keyring"):
        secrets.put("password", "a", "b")


def test_the_file_shows_nothing_and_is_private(no_keyring: object, tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    secrets = Secrets.open(file)
    assert isinstance(secrets, FileSecrets)
    secrets.put("password", "me@host", "hunter2-hunter2")
    texts = [path.read_bytes() for path in tmp_path.glob("secrets*")]
    assert len(texts) == 3, "the secrets, their key, and an empty file that is locked"
    assert not any(b"hunter2" in text or b"me@host" in text for text in texts)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("secrets*")} == {0o600}
    assert "programs that run as you can" in secrets.where
    assert FileSecrets(file).get("password", "me@host") == "hunter2-hunter2"


@pytest.mark.parametrize("damage", ["file", "key", "no key"])
def test_a_damaged_file_counts_as_empty_and_is_written_anew(no_keyring: object, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "secrets.json"
    secrets = FileSecrets(file)
    secrets.put("password", "a", "b")
    key = tmp_path / "secrets.json.key"
    if damage == "no key":
        key.unlink()
    else:
        (file if damage == "file" else key).write_bytes(b"garbage")
    assert secrets.get("password", "a") is None
    secrets.put("password", "c", "d")
    assert secrets.get("password", "c") == "d"


def test_threads_do_not_lose_each_others_secrets(tmp_path: Path) -> None:
    secrets = FileSecrets(tmp_path / "secrets.json")
    secrets.put("password", "first", "x")
    threads = [threading.Thread(target=secrets.put, args=("password", str(n), str(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [secrets.get("password", str(n)) for n in range(8)] == [str(n) for n in range(8)]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="could not be kept"):
        FileSecrets(tmp_path / "file" / "secrets.json").put("password", "a", "b")


def test_two_programs_that_keep_secrets_at_once_lose_none(tmp_path: Path) -> None:
    code = "import sys; from core.security.secrets import FileSecrets; from pathlib import Path; " + (
        "[FileSecrets(Path(sys.argv[1])).put('password', f'{sys.argv[2]} {i}', 'x') for i in range(40)]"
    )
    file = tmp_path / "new" / "secrets"
    programs = [
        subprocess.Popen([sys.executable, "-c", code, str(file), name], cwd=Path(__file__).parents[2]) for name in "ab"
    ]
    assert [program.wait(60) for program in programs] == [0, 0]
    kept = FileSecrets(file)
    assert all(kept.get("password", f"{name} {i}") == "x" for name in "ab" for i in range(40))
