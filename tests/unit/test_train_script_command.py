"""Command lines and environments of scripts, and what is checked before a launch."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

import core
from core.train.script import command
from core.train.tasks.script import ScriptTrainingSpec, check


def test_python_starts_the_script_itself() -> None:
    assert command.launch_argv("py", "python", 1, "auto") == (["py"], {}, "")


def test_torchrun_ends_its_options_before_the_script() -> None:
    argv, env, note = command.launch_argv("py", "torchrun", 2, "auto")
    assert argv[:3] == ["py", "-m", "torch.distributed.run"]
    assert argv[-1] == "--"
    assert argv[argv.index("--nproc-per-node") + 1] == "2"
    assert (env, note) == ({}, "")


def test_accelerate_with_several_cpu_processes_goes_through_torchrun() -> None:
    argv, env, note = command.launch_argv("py", "accelerate", 2, "cpu")
    assert "torch.distributed.run" in argv
    assert env == {"ACCELERATE_USE_CPU": "true"}
    assert note
    argv, env, note = command.launch_argv("py", "accelerate", 1, "cpu")
    assert argv[:3] == ["py", "-m", "accelerate.commands.launch"]
    assert "--cpu" in argv
    assert not note


def test_accelerate_on_a_gpu_gets_a_free_port() -> None:
    argv, env, _ = command.launch_argv("py", "accelerate", 2, "cuda")
    assert int(argv[argv.index("--main_process_port") + 1]) > 0
    assert "--cpu" not in argv
    assert env == {}


def test_the_script_gets_the_emitter_but_none_of_our_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = str(Path(core.__path__[0]).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ours, "/their/own"]))
    folder = command.write_emitter(tmp_path / "emit")
    env = command.script_environment(tmp_path, folder, 3)
    assert env["PYTHONPATH"].split(os.pathsep) == [str(folder), "/their/own"]
    assert [path.name for path in folder.iterdir()] == ["pilothouse_emit.py"]
    assert env["OMP_NUM_THREADS"] == "3"
    assert command.threads_per_process(0, 10_000) == 1
    assert command.threads_per_process(5, 2) == 5


def test_check_names_what_is_missing(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    good = ScriptTrainingSpec(script=str(script), interpreter=sys.executable)
    assert check(good) == ()
    assert [p.field for p in check(ScriptTrainingSpec())] == ["script"]
    bad = ScriptTrainingSpec(
        script=str(tmp_path / "gone.py"), working_folder=str(tmp_path / "no"), interpreter="no-python", processes=2
    )
    problems = check(bad)
    assert [p.field for p in problems] == ["script", "working_folder", "interpreter", "processes"]
    assert all(p.hint for p in problems)
    assert "folder" in check(ScriptTrainingSpec(script=str(tmp_path)))[0].message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_check_names_a_script_that_may_not_be_read(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    script.chmod(stat.S_IWUSR)
    assert "cannot be read" in check(ScriptTrainingSpec(script=str(script)))[0].message
