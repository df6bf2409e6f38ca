"""The worker package: a valid wheel, the same bytes each time; and the command that starts a module of it anywhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from core.contracts.errors import UserError
from core.contracts.hosts import RuntimeRecord
from core.fleet.worker_command import command_of, python_command
from core.fleet.worker_wheel import EXTRAS, REQUIRED, build_worker_wheel, wheel_name, worker_version

HOSTILE = ["a b", "$(touch never)", 'it\'s "q"', "-x", "`id`", "two\nlines", "*", "~", ""]
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], sys.stdin.read(), os.environ.get('SET'), os.environ.get('PYTHONPATH')]))"


def test_the_wheel_is_the_same_each_time_and_its_record_holds(tmp_path: Path) -> None:
    first = build_worker_wheel(tmp_path / "one")
    second = build_worker_wheel(tmp_path / "two")
    assert first.name == wheel_name()
    assert first.read_bytes() == second.read_bytes()
    packed = zipfile.ZipFile(first)
    record = next(name for name in packed.namelist() if name.endswith("/RECORD"))
    rows = list(csv.reader(io.StringIO(packed.read(record).decode())))
    assert sorted(row[0] for row in rows) == sorted(packed.namelist())
    for name, digest, size in rows:
        if name != record:
            data = packed.read(name)
            assert int(size) == len(data)
            assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def test_a_wheel_that_is_there_is_used_and_nothing_half_made_stays(tmp_path: Path) -> None:
    wheel = build_worker_wheel(tmp_path)
    made = wheel.stat().st_mtime_ns
    assert build_worker_wheel(tmp_path).stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [wheel]


def test_it_holds_what_hosts_need_and_nothing_of_the_window(tmp_path: Path) -> None:
    names = zipfile.ZipFile(build_worker_wheel(tmp_path)).namelist()
    assert {"core/cli/supervise.py", "core/jobs/worker.py", "native/peak.cpp", "resources/examples/digits.toml"} <= {
        *names
    }
    assert not [name for name in names if name.startswith(("app/", "tests/")) or name.endswith((".pyc", ".otf"))]


def test_what_it_requires_is_what_the_supervisor_and_the_kinds_import() -> None:
    program = """
import sys
import core.cli.supervise
from core.plugins.registry import registry
assert not registry().broken
print("\\n".join(sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))))
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    distributions = metadata.packages_distributions()
    needed = {name for module in done.stdout.split() for name in distributions.get(module, ())}
    own = {"pilothouse", "setuptools", "typing-extensions"}
    found = {name.lower().replace("_", "-") for name in needed} - own
    assert "msgspec" in found
    assert found <= set(REQUIRED)


def test_an_installer_takes_it(tmp_path: Path) -> None:
    wheel = build_worker_wheel(tmp_path)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(tmp_path / "t")]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, timeout=50)
    (found,) = metadata.distributions(path=[str(tmp_path / "t")])
    assert found.version == worker_version()
    wanted = found.requires or []
    assert [line for line in wanted if ";" not in line] == list(REQUIRED)
    assert set(found.metadata.get_all("Provides-Extra") or []) == set(EXTRAS)
    # The version there is read from the package, and is the one here.
    ask = "from core.fleet.worker_wheel import worker_version; print(worker_version())"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", ask],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "t")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == worker_version()


def test_words_arrive_as_they_are_and_a_prelude_spoils_no_stream(tmp_path: Path) -> None:
    folder = tmp_path / "it's a $(folder)"
    runtime = RuntimeRecord(
        kind="interpreter",
        python=sys.executable,
        worker_dir=str(folder),
        prelude=("echo loading modules", "cat", "export SET='by the prelude'", "export PYTHONPATH=/from/modules"),
        wrapper=("env", "WRAPPED=yes"),
    )
    command = python_command(runtime, ["-c", SHOW, *HOSTILE])
    done = subprocess.run(command, input=b"frames\x00\n", capture_output=True, check=True, cwd=tmp_path)
    words, stdin, value, path = json.loads(done.stdout)
    assert words == HOSTILE
    assert stdin == "frames\x00\n"
    assert value == "by the prelude"
    assert path == f"{folder}:/from/modules"
    assert b"loading modules" in done.stderr
    assert not (tmp_path / "never").exists()


def test_a_module_starts_without_a_prelude_too(tmp_path: Path) -> None:
    wheel = build_worker_wheel(tmp_path)
    zipfile.ZipFile(wheel).extractall(tmp_path / "worker")
    runtime = RuntimeRecord(kind="interpreter", python=sys.executable, worker_dir=str(tmp_path / "worker"))
    command = command_of(runtime, "core.fleet.self_test", ["versions"])
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout.partition("pilothouse-self-test:")[2])["worker_version"] == worker_version()


def test_a_host_without_an_environment_is_said_so() -> None:
    with pytest.raises(UserError, match="no Python environment") as raised:
        command_of(RuntimeRecord(), "core.cli.agent")
    assert "pilothouse hosts install" in raised.value.hint
