"""Which keys are trusted: every form of line that OpenSSH writes, and what paramiko stumbles over."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from core.ssh.known_hosts import KnownHosts, Verdict, fingerprint
from tests.helpers.ssh_server import keygen

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="not installed: ssh-keygen")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bytes, str]]:
    """Type, blob and text of some public keys."""
    from core.ssh.key_files import public_blob

    folder = tmp_path_factory.mktemp("keys")
    found: dict[str, tuple[str, bytes, str]] = {}
    for name, key_type in (("one", "ed25519"), ("two", "ed25519"), ("curve", "ecdsa"), ("rsa", "rsa")):
        keygen(folder / name, key_type)
        kind, text = (folder / f"{name}.pub").read_text().split()[:2]
        blob = public_blob(folder / f"{name}.pub")
        assert blob is not None
        found[name] = (kind, blob, f"{kind} {text}")
    return found


Keys = dict[str, tuple[str, bytes, str]]


def judged(tmp_path: Path, text: str, host: str, port: int, key: tuple[str, bytes, str]) -> Verdict:
    (tmp_path / "users").write_text(text)
    return KnownHosts(tmp_path / "own", [tmp_path / "users"]).judge(host, port, key[0], key[1]).verdict


def test_lines_that_break_other_readers_are_passed_over(tmp_path: Path, keys: Keys) -> None:
    one = keys["one"][2]
    text = (
        f"# a comment\n\n@cert-authority *.corp {one}\n@revoked * {keys['two'][2]}\n@other x {one}\ngarbage\n"
        f"host ssh-ed25519 not*base64\nhost ssh-ed25519\n\x00\nsome,host {one} a comment\n"
    )
    assert judged(tmp_path, text, "host", 22, keys["one"]) is Verdict.KNOWN
    assert judged(tmp_path, text, "host", 22, keys["two"]) is Verdict.REVOKED
    assert judged(tmp_path, text, "x.corp", 22, keys["one"]) is Verdict.UNKNOWN, "a certificate's authority is no key"


def test_changed_new_type_and_unknown_are_told_apart(tmp_path: Path, keys: Keys) -> None:
    text = f"host {keys['one'][2]}\n"
    assert judged(tmp_path, text, "host", 22, keys["two"]) is Verdict.CHANGED
    assert judged(tmp_path, text, "host", 22, keys["curve"]) is Verdict.NEW_TYPE
    assert judged(tmp_path, text, "other", 22, keys["one"]) is Verdict.UNKNOWN


def test_one_right_line_of_several_is_enough(tmp_path: Path, keys: Keys) -> None:
    text = f"host {keys['two'][2]}\nhost {keys['one'][2]}\n"
    assert judged(tmp_path, text, "host", 22, keys["one"]) is Verdict.KNOWN


@pytest.mark.parametrize(
    ("names", "host", "port", "expected"),
    [
        ("HOST", "host", 22, Verdict.KNOWN),
        ("*.lab,!bad.lab", "a.lab", 22, Verdict.KNOWN),
        ("*.lab,!bad.lab", "bad.lab", 22, Verdict.UNKNOWN),
        ("10.0.0.?", "10.0.0.7", 22, Verdict.KNOWN),
        ("[127.0.0.*]:2200", "127.0.0.1", 2200, Verdict.KNOWN),
        ("[127.0.0.1]:2200", "127.0.0.1", 2201, Verdict.UNKNOWN),
        ("[host]:2200", "host", 22, Verdict.UNKNOWN),
        ("host", "host", 2200, Verdict.KNOWN),
        ("[ab]c", "ac", 22, Verdict.UNKNOWN),
        ("fe80::1", "fe80::1", 22, Verdict.KNOWN),
    ],
)
def test_names_are_matched_as_openssh_does(
    tmp_path: Path, keys: Keys, names: str, host: str, port: int, expected: Verdict
) -> None:
    assert judged(tmp_path, f"{names} {keys['one'][2]}\n", host, port, keys["one"]) is expected


def test_hashed_names_of_openssh_are_read(tmp_path: Path, keys: Keys) -> None:
    file = tmp_path / "users"
    file.write_text(f"host {keys['one'][2]}\n[host]:2200 {keys['two'][2]}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "host" not in file.read_text()
    text = file.read_text() + f"|1|broken {keys['one'][2]}\n"
    assert judged(tmp_path, text, "host", 22, keys["one"]) is Verdict.KNOWN
    assert judged(tmp_path, text, "host", 2200, keys["two"]) is Verdict.KNOWN
    assert judged(tmp_path, text, "else", 22, keys["one"]) is Verdict.UNKNOWN


def test_an_accepted_key_is_added_to_our_file_only(tmp_path: Path, keys: Keys) -> None:
    users, own = tmp_path / "users", tmp_path / "new" / "own"
    before = f"# mine\n@cert-authority * {keys['two'][2]}\nweird line"
    users.write_text(before)
    known = KnownHosts(own, [users])
    for host, port in (("a", 22), ("b", 2200)):
        known.add(host, port, keys["one"][0], keys["one"][1])
        assert known.judge(host, port, keys["one"][0], keys["one"][1]).verdict is Verdict.KNOWN
    assert users.read_text() == before
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.read_text() == f"a {keys['one'][2]}\n[b]:2200 {keys['one'][2]}\n"
    known.add("c", 22, keys["curve"][0], keys["curve"][1])
    assert KnownHosts(own).types("c", 22) == ("ecdsa-sha2-nistp256",)


def test_a_file_without_a_last_newline_is_not_damaged(tmp_path: Path, keys: Keys) -> None:
    own = tmp_path / "own"
    own.write_text(f"a {keys['one'][2]}")
    KnownHosts(own).add("b", 22, keys["two"][0], keys["two"][1])
    assert own.read_text() == f"a {keys['one'][2]}\nb {keys['two'][2]}\n"


def test_the_fingerprint_is_the_one_of_ssh_keygen(tmp_path: Path, keys: Keys) -> None:
    (tmp_path / "key.pub").write_text(keys["rsa"][2])
    shown = subprocess.run(["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")], capture_output=True, check=True)
    assert fingerprint(keys["rsa"][1]) in shown.stdout.decode()
