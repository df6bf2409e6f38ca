"""Command lines and environments of scripts, and what is checked before a launch."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

import core
from core.contracts.placement import NodePlacement, Placement, Rendezvous
from core.contracts.specs import LaunchSpec
from core.train.script import command
from core.train.tasks.script import KIND, ScriptTrainingSpec, check


def group(processes: int, *, nodes: int = 1, node: str = "a", min_nodes: int | None = None) -> command.RankGroup:
    placed = tuple(
        NodePlacement(node=name, host=name, address=address, processes=processes)
        for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3"))[:nodes]
    )
    placement = Placement(
        nodes=placed,
        rendezvous=Rendezvous(port=4711, watch_port=4712, token="t") if nodes > 1 else None,
        min_nodes=nodes if min_nodes is None else min_nodes,
    )
    return command.RankGroup(placement=placement, node=node, group_id="run-1", log_folder=Path("/logs"))


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_python_starts_the_script_itself() -> None:
    assert command.launch_argv("py", "python", "auto", group(1)) == (["py"], {}, "")


def test_torchrun_ends_its_options_before_the_script() -> None:
    argv, env, note = command.launch_argv("py", "torchrun", "auto", group(2))
    assert argv[:3] == ["py", "-m", "torch.distributed.run"]
    assert argv[-1] == "--"
    assert "--standalone" in argv
    assert option(argv, "--nproc-per-node") == "2"
    assert (env, note) == ({}, "")


def test_on_several_nodes_only_the_head_holds_the_rendezvous() -> None:
    for node, address, is_host in (("a", "10.0.0.1", "true"), ("b", "10.0.0.2", "false")):
        argv, _, _ = command.launch_argv("py", "torchrun", "auto", group(2, nodes=2, node=node))
        assert "--standalone" not in argv
        assert option(argv, "--nnodes") == "2:2"
        assert option(argv, "--rdzv-endpoint") == "10.0.0.1:4711"
        assert option(argv, "--rdzv-id") == "run-1"
        assert f"is_host={is_host}" in option(argv, "--rdzv-conf").split(",")
        assert option(argv, "--local-addr").endswith(address)
        assert option(argv, "--max-restarts") == "0"
        assert argv[-1] == "--"


def test_ranks_are_numbered_in_the_placements_order_and_the_head_is_known_by_its_address() -> None:
    nodes = [group(1, nodes=3, node=node) for node in "abc"]
    names = [option(command.launch_argv("py", "torchrun", "auto", one)[0], "--local-addr") for one in nodes]
    assert names[0] == "10.0.0.1"
    assert sorted(names) == names


def test_an_elastic_run_may_restart_once_for_each_node_that_it_can_lose() -> None:
    argv, _, _ = command.launch_argv("py", "torchrun", "auto", group(1, nodes=3, min_nodes=1))
    assert option(argv, "--nnodes") == "1:3"
    assert option(argv, "--max-restarts") == "2"


def test_accelerate_with_several_cpu_processes_goes_through_torchrun() -> None:
    argv, env, note = command.launch_argv("py", "accelerate", "cpu", group(2))
    assert "torch.distributed.run" in argv
    assert env == {"ACCELERATE_USE_CPU": "true"}
    assert note
    argv, env, note = command.launch_argv("py", "accelerate", "cpu", group(1))
    assert argv[:3] == ["py", "-m", "accelerate.commands.launch"]
    assert "--cpu" in argv
    assert not note


def test_accelerate_on_several_nodes_goes_through_torchrun_even_on_gpus() -> None:
    argv, env, note = command.launch_argv("py", "accelerate", "cuda", group(2, nodes=2))
    assert "torch.distributed.run" in argv
    assert env == {}
    assert note


def test_accelerate_on_a_gpu_gets_a_free_port() -> None:
    argv, env, _ = command.launch_argv("py", "accelerate", "cuda", group(2))
    assert int(option(argv, "--main_process_port")) > 0
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


def test_python_cannot_start_one_process_on_each_of_several_hosts(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    spec = ScriptTrainingSpec(script=str(script), launch=LaunchSpec(hosts=("a", "b")))
    assert [problem.field for problem in check(spec)] == ["launcher"]
    assert check(ScriptTrainingSpec(script=str(script), launcher="torchrun", launch=LaunchSpec(hosts=("a", "b")))) == ()


def test_the_code_folder_is_the_working_folder_when_the_script_lies_in_it(tmp_path: Path) -> None:
    script = tmp_path / "project" / "bin" / "train.py"
    inside = ScriptTrainingSpec(script=str(script), working_folder=str(tmp_path / "project"))
    assert KIND.code_folder(inside) == str(tmp_path / "project")
    assert KIND.code_folder(ScriptTrainingSpec(script=str(script))) == str(script.parent)
    assert KIND.code_folder(ScriptTrainingSpec(script=str(script), working_folder="/data")) == str(script.parent)
    assert KIND.ranks(ScriptTrainingSpec(script=str(script), processes=3)) == 3
