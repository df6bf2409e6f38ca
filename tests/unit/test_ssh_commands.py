"""What a login shell is given: it must mean the same to every shell there is."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.errors import UserError
from core.ssh.commands import command

SHELLS = [name for name in ("sh", "bash", "dash", "zsh", "ksh", "fish", "tcsh", "csh") if shutil.which(name)]
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30), max_size=5)


def words_seen(shell: str, words: list[str], env: dict[str, str]) -> list[str]:
    text = command(["/bin/sh", "-c", 'printf "%s\\0" "$PH_VALUE" "$@"', "sh", *words], env)
    done = subprocess.run([shell, "-c", text], capture_output=True, check=False, timeout=30)
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=30, deadline=None)
@given(words=WORDS, value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_words_and_values_arrive_unchanged(shell: str, words: list[str], value: str) -> None:
    assert words_seen(shell, words, {"PH_VALUE": value}) == [value, *words]


@pytest.mark.parametrize("shell", SHELLS)
def test_known_traps_arrive_unchanged(shell: str) -> None:
    words = ["\\'", "\\\\", "!!", "!$", "a\n\nb\n", "'\n'", "%s%n", "\x01\x7f", "\\0141", "$((1))", "`", "\t", "~root"]
    assert words_seen(shell, words, {"PH_VALUE": "x\n"}) == ["x\n", *words]


def test_a_usual_command_stays_readable() -> None:
    assert command(["nvidia-smi", "--query", "a b"]) == b"exec /bin/sh -c 'exec nvidia-smi --query '\"'\"'a b'\"'\"''"


@pytest.mark.parametrize("name", ["", "A B", "1A", "A=B", "A;touch x", "A\n"])
def test_impossible_variables_are_refused(name: str) -> None:
    with pytest.raises(UserError):
        command(["true"], {name: "1"})


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(UserError):
        command([])
