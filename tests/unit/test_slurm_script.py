"""The sbatch script as text: what it says, and that no value can say anything else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from core.contracts.clusters import SlurmSpec
from core.contracts.errors import EnvironmentProblem, InvalidSpec, UserError
from core.contracts.hosts import RuntimeRecord
from core.contracts.placement import NodePlacement, Placement, Rendezvous
from core.contracts.specs import LaunchSpec, RunSpec
from core.fleet.slurm.allocation import Allocation
from core.fleet.slurm.attempts import await_placement
from core.fleet.slurm.script import JobPart, array_script, job_script, overriding_variables
from core.fleet.slurm.values import file_pattern, job_name, slurm_problems
from core.jobs.records import write_record

RUNTIME = RuntimeRecord(kind="interpreter", python="/opt/py thon/bin/python")
PART = JobPart(run_id="run-1", run_dir="/shared/runs/run-1", attempt=3)


class PlainSpec(RunSpec, frozen=True, kw_only=True, tag="test.plain"):
    """Asks nothing."""


def spec_of(name: str = "digits", **slurm: object) -> RunSpec:
    return PlainSpec(name=name, launch=LaunchSpec(slurm=msgspec.convert({"cluster": "c", **slurm}, SlurmSpec)))


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


def test_every_field_becomes_its_option() -> None:
    spec = spec_of(
        nodes=2, partition="gpu,long", account="phys", qos="high", time_limit="2-00:00:00", gres="gpu:a100:4",
        constraint="a100&nvlink|h100", cpus_per_node=8, memory="64G", warn_s=90, requeues=3, options=("--exclude=n[1-3]",),
    )  # fmt: skip
    assert directives(job_script(spec, PART, RUNTIME)) == [
        "--job-name=digits",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--partition=gpu,long",
        "--account=phys",
        "--qos=high",
        "--time=2-00:00:00",
        "--gres=gpu:a100:4",
        '--constraint="a100&nvlink|h100"',
        "--cpus-per-task=8",
        "--mem=64G",
        "--signal=B:USR1@90",
        "--requeue",
        "--open-mode=append",
        "--exclude=n[1-3]",
        "--output=/shared/runs/run-1/slurm-%j.out",
    ]


def test_what_is_left_empty_is_left_to_the_cluster() -> None:
    lines = directives(job_script(spec_of(warn_s=0), PART, RUNTIME))
    assert [line.partition("=")[0] for line in lines] == [
        "--job-name", "--nodes", "--ntasks-per-node", "--no-requeue", "--open-mode", "--output",
    ]  # fmt: skip


@pytest.mark.parametrize("field", ["partition", "account", "qos", "time_limit", "gres", "constraint", "memory"])
@pytest.mark.parametrize(
    "value",
    ["a\n#SBATCH --uid=0", "a b", "$(touch x)", "`x`", "a;b", "a'b", 'a"b', "a\\b", "-x y", "ü", "a\x00", "a#b"],
)
def test_a_hostile_value_is_refused_by_its_field(field: str, value: str) -> None:
    problems = slurm_problems(msgspec.convert({field: value}, SlurmSpec))
    assert [problem.field for problem in problems] == [f"launch.slurm.{field}"]
    with pytest.raises(InvalidSpec, match="cannot be given to Slurm"):
        job_script(spec_of(**{field: value}), PART, RUNTIME)


@pytest.mark.parametrize(
    "option",
    ["exclude=n1", "--exclude=n1 --uid=0", "--comment=$(x)", "-N 3", "--wrap=x", "--output=/x", "--mem=1", "--\n"],
)
def test_a_further_option_is_one_word_and_none_of_ours(option: str) -> None:
    assert [problem.field for problem in slurm_problems(SlurmSpec(options=(option,)))] == ["launch.slurm.options"]


def test_all_problems_are_told_at_once() -> None:
    problems = slurm_problems(SlurmSpec(partition="a b", memory="much", time_limit="1:00:00", warn_s=0, requeues=1))
    assert {problem.field for problem in problems} == {f"launch.slurm.{x}" for x in ("partition", "memory", "warn_s")}


def test_a_name_of_any_letters_becomes_the_name_of_a_job() -> None:
    assert job_name("My 'run' $(touch x)\n#SBATCH --uid=0") == "My-run-touch-x-SBATCH---uid-0"
    assert job_name("\n") == "pilothouse"


def test_a_folder_that_slurm_cannot_be_told_is_refused() -> None:
    for folder in ("/a\nb", "/a\x1bb", "/a\\b"):
        with pytest.raises(UserError, match="folder"):
            file_pattern(folder, "x")
    assert file_pattern("/a b/100%", "slurm-%j.out") == '"/a b/100%%/slurm-%j.out"'


def run_body(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script with commands of our own in the place of Slurm's, which note what they were given."""
    tools = folder / "tools"
    tools.mkdir(parents=True)
    (tools / "srun").write_text('#!/bin/sh\nfor word; do printf "<%s>\\n" "$word"; done\nexit "${SRUN_STATUS:-0}"\n')
    (tools / "scontrol").write_text('#!/bin/sh\necho "scontrol $*"\nexit 1\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", **variables}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=env, cwd=folder)


HOSTILE = "we ird'$(touch hit)`touch hit`\"; touch hit; # 100%"


def test_a_hostile_folder_reaches_the_program_as_it_is(tmp_path: Path) -> None:
    part = JobPart(run_id="run-1", run_dir=str(tmp_path / HOSTILE), attempt=2)
    done = run_body(job_script(spec_of(), part, RUNTIME), tmp_path, SLURM_RESTART_COUNT="3")
    assert done.returncode == 0, done.stderr
    words = [line.strip("<>") for line in done.stdout.splitlines()]
    assert words[-2:] == [str(tmp_path / HOSTILE), "5"], "the folder, and the attempt: the given one and three requeues"
    assert "/opt/py thon/bin/python" in words
    assert not list(tmp_path.rglob("hit"))


def test_each_task_of_an_array_has_its_own_run(tmp_path: Path) -> None:
    parts = [JobPart(run_id=f"run-{i}", run_dir=str(tmp_path / f"{HOSTILE} {i}")) for i in range(3)]
    for part in parts:
        Path(part.run_dir).mkdir()
    script = array_script(spec_of(), parts, RUNTIME, at_once=2)
    assert "--array=0-2%2" in directives(script)
    done = run_body(script, tmp_path, SLURM_ARRAY_TASK_ID="1")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"<{parts[1].run_dir}>" in (Path(parts[1].run_dir) / "slurm-7.out").read_text()
    assert not list(tmp_path.rglob("hit"))


@pytest.mark.parametrize(
    ("status", "restarts", "is_requeued"),
    [("85", "0", True), ("85", "2", False), ("75", "0", False), ("0", "0", False)],
)
def test_a_job_goes_back_into_the_queue_only_when_asked_and_only_so_often(
    tmp_path: Path, status: str, restarts: str, *, is_requeued: bool
) -> None:
    script = job_script(spec_of(requeues=2), JobPart(run_id="r", run_dir=str(tmp_path)), RUNTIME)
    done = run_body(script, tmp_path, SRUN_STATUS=status, SLURM_RESTART_COUNT=restarts)
    assert ("scontrol requeue 7" in done.stdout) is is_requeued
    assert done.returncode == int(status)


def test_the_prelude_stands_as_it_was_written_and_in_a_login_shell() -> None:
    runtime = msgspec.structs.replace(RUNTIME, prelude=("module load cuda/12.4", "", "export A='b c'"))
    lines = job_script(spec_of(), PART, runtime).splitlines()
    assert lines[0] == "#!/bin/bash -l"
    assert lines.index("module load cuda/12.4") < lines.index("export A='b c'") < len(lines)
    assert job_script(spec_of(), PART, RUNTIME).startswith("#!/bin/bash\n")


def test_a_logins_defaults_do_not_override_what_is_asked() -> None:
    names = overriding_variables(SlurmSpec(partition="gpu"))
    assert "SBATCH_PARTITION" in names
    assert "SBATCH_ACCOUNT" not in names, "a default stays where nothing is asked"


def test_a_node_waits_for_the_placement_of_this_very_start_of_its_job(tmp_path: Path) -> None:
    # A run that was paused had more attempts than starts, so the number of an earlier start's attempt may be higher.
    start = Allocation(job_id="7", index=1, hosts=("n1", "n2"), restarts=2)
    node = NodePlacement(node="node0")
    meeting = Rendezvous(port=1, watch_port=2, token="t")
    earlier = Placement(nodes=(node,), engine="slurm", attempt=5, rendezvous=meeting, job_id="7", restarts=1)
    write_record(tmp_path / "placement.json", earlier)
    with pytest.raises(EnvironmentProblem, match="did not begin"):
        await_placement(tmp_path, start, limit_s=0.3)
    current = msgspec.structs.replace(earlier, attempt=6, restarts=2)
    write_record(tmp_path / "placement.json", current)
    assert await_placement(tmp_path, start, limit_s=5.0) == current
