"""``SlurmCluster`` against a real Slurm: what is submitted, why it waits, how it ended, what the cluster offers."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.contracts.clusters import SlurmSpec
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import HostRecord, RuntimeRecord
from core.contracts.specs import LaunchSpec, RunSpec
from core.contracts.states import RunState
from core.fleet.slurm import JobPhase, JobState, SlurmCluster
from core.ssh.local import LocalLink
from tests.helpers.slurm_lab import SlurmLab, running_slurm
from tests.helpers.waiting import wait_for

SLEEP = "#!/bin/bash\n#SBATCH --output=out\nexec sleep 600\n"
HOSTILE = "we ird'$(touch hit)`touch hit`\" 100% ünï #SBATCH --uid=0"


class PlainSpec(RunSpec, frozen=True, kw_only=True, tag="test.plain"):
    """Asks nothing."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmLab]:
    with running_slurm(tmp_path_factory.mktemp("slurm") / "lab") as running:
        yield running


@pytest.fixture
def cluster(lab: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    yield opened(lab, tmp_path / "home", monkeypatch)
    lab.forget_jobs()


def opened(lab: SlurmLab, home: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """Return the lab's cluster with a program of ours that only tells its arguments in the place of Python."""
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    program = home / "echo arguments"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\nhostname >/dev/null\n')
    program.chmod(0o755)
    record = HostRecord(name="local", runtime=RuntimeRecord(kind="interpreter", python=str(program)))
    return SlurmCluster(LocalLink("local"), record, str(home))


def run_dir(cluster: SlurmCluster, run_id: str = "run") -> str:
    path = Path(cluster.run_dir(run_id))
    path.mkdir(parents=True)
    return str(path)


def slurm(**fields: object) -> RunSpec:
    return PlainSpec(name="digits", launch=LaunchSpec(slurm=msgspec.convert({"cluster": "c", **fields}, SlurmSpec)))


def submit(cluster: SlurmCluster, spec: RunSpec, run_id: str = "run") -> str:
    place = run_dir(cluster, run_id)
    return cluster.submit(place, cluster.script(spec, run_id), spec)


def state(cluster: SlurmCluster, job_id: str) -> JobState:
    return cluster.state([job_id])[job_id]


def ended(cluster: SlurmCluster, job_id: str) -> JobState:
    return wait_for(
        lambda: found if (found := state(cluster, job_id)).phase is JobPhase.ENDED else None, "the job to end"
    )


def test_a_job_runs_our_program_once_on_each_node(cluster: SlurmCluster) -> None:
    job_id = submit(cluster, slurm(nodes=2, time_limit="5", memory="100M", constraint="lab", options=("--comment=x",)))
    found = ended(cluster, job_id)
    assert (found.slurm_state, found.run_state, found.code) == ("COMPLETED", RunState.SUCCEEDED, 0)
    said = (Path(cluster.run_dir("run")) / f"slurm-{job_id}.out").read_text()
    assert said.count(f"-P|-m|core.cli.slurm_node|{cluster.run_dir('run')}|1|") == 2


def test_hostile_folders_and_names_are_only_names(
    lab: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = opened(lab, tmp_path / HOSTILE, monkeypatch)
    spec = msgspec.structs.replace(slurm(nodes=2), name="x'\n#SBATCH --partition=closed\n$(touch hit)")
    job_id = submit(cluster, spec)
    assert ended(cluster, job_id).run_state is RunState.SUCCEEDED
    said = (Path(cluster.run_dir("run")) / f"slurm-{job_id}.out").read_text()
    assert said.count(f"|{cluster.run_dir('run')}|1|") == 2
    assert not list(tmp_path.rglob("hit"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"partition": "nope"}, "no such partition"),
        ({"gres": "gpu:3"}, "no such generic resource"),
        ({"constraint": "h100"}, "No node of the cluster has such features"),
        ({"memory": "100T"}, "that much memory"),
    ],
)
def test_a_refused_job_says_why(cluster: SlurmCluster, fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        submit(cluster, slurm(**fields))
    assert refused.value.hint


def test_waiting_jobs_say_why(lab: SlurmLab, cluster: SlurmCluster) -> None:
    place = run_dir(cluster, "busy")
    lab.wait_idle()
    busy = cluster.submit(place, SLEEP.replace("#SBATCH", "#SBATCH --exclusive --nodes=2"))
    wait_for(lambda: state(cluster, busy).phase is JobPhase.RUNNING, "the first job to run")
    assert state(cluster, busy).nodes == "n[1-2]"
    waits = {
        "Resources": submit(cluster, slurm(nodes=2), "a"),
        "Priority": submit(cluster, slurm(nodes=2), "b"),
    }

    def reasons() -> dict[str, JobState] | None:
        found = cluster.state(list(waits.values()))
        settled = all(one.reason not in ("None", "") for one in found.values())
        return found if settled else None

    found = wait_for(reasons, "all reasons")
    assert {one.run_state for one in found.values()} == {RunState.QUEUED}
    assert "enough nodes" in found[waits["Resources"]].message
    assert found[waits["Priority"]].reason in ("Resources", "Priority")
    cluster.hold(waits["Priority"])
    assert "Is held by" in state(cluster, waits["Priority"]).message
    cluster.release(waits["Priority"])
    wait_for(lambda: "held" not in state(cluster, waits["Priority"]).message, "the job to be released")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"partition": "closed"}, "takes no jobs now"),
        ({"partition": "small", "time_limit": "2:00:00"}, "longer than the partition|more than the partition"),
        ({"nodes": 5}, "more nodes than the partition|more than the partition"),
        ({"cpus_per_node": 64}, "No node can ever|more than the partition"),
    ],
)
def test_a_job_that_cannot_start_says_what_to_do(
    cluster: SlurmCluster, fields: dict[str, object], message: str
) -> None:
    job_id = submit(cluster, slurm(**fields))
    wait_for(lambda: re.search(message, state(cluster, job_id).message), f"the reason {message}")
    assert state(cluster, job_id).hint


def test_a_cancelled_job_is_stopped_and_cancelling_again_is_no_error(cluster: SlurmCluster) -> None:
    job_id = cluster.submit(run_dir(cluster), SLEEP)
    wait_for(lambda: state(cluster, job_id).phase is JobPhase.RUNNING, "the job to run")
    cluster.cancel(job_id)
    found = ended(cluster, job_id)
    assert (found.run_state, found.message) == (RunState.STOPPED, "The job was cancelled.")
    cluster.cancel(job_id)
    cluster.cancel("99999")
    with pytest.raises(UserError, match="no longer knows"):
        cluster.requeue("99999")


def test_an_array_is_one_job_of_several_runs(cluster: SlurmCluster) -> None:
    run_ids = [f"run-{number}" for number in range(3)]
    for run_id in run_ids:
        run_dir(cluster, run_id)
    jobs = cluster.submit_array(slurm(time_limit="5"), run_ids, at_once=2)
    assert len({job_id.partition("_")[0] for job_id in jobs.values()}) == 1
    for run_id, job_id in jobs.items():
        assert ended(cluster, job_id).run_state is RunState.SUCCEEDED
        (log,) = Path(cluster.run_dir(run_id)).glob("slurm-*.out")
        assert f"|{cluster.run_dir(run_id)}|1|" in log.read_text()


def test_a_failed_script_tells_its_exit_status(cluster: SlurmCluster) -> None:
    found = ended(cluster, cluster.submit(run_dir(cluster), "#!/bin/bash\n#SBATCH --output=out\nexit 3\n"))
    assert (found.run_state, found.code, found.message) == (RunState.FAILED, 3, "The job failed with exit status 3.")


def test_what_the_cluster_offers(cluster: SlurmCluster) -> None:
    info = cluster.info()
    assert info.version.count(".") == 2
    by_name = {partition.name: partition for partition in info.partitions}
    assert (by_name["lab"].is_default, by_name["lab"].is_up, by_name["lab"].nodes) == (True, True, 2)
    assert (by_name["lab"].cpus_per_node, by_name["lab"].memory_bytes) == (2, 2000 << 20)
    assert (by_name["lab"].features, by_name["lab"].gres) == (("lab",), ())
    assert (by_name["small"].nodes, by_name["small"].time_limit) == (1, "5:00")
    assert not by_name["closed"].is_up
    assert not info.has_accounting


def test_an_unknown_job_is_unknown_and_a_strange_id_is_never_sent(cluster: SlurmCluster) -> None:
    found = cluster.state(["99999", "1; touch hit", "--help"])
    assert {one.phase for one in found.values()} == {JobPhase.UNKNOWN}
    assert cluster.state([]) == {}


def test_a_host_without_slurm_says_so(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("env", "id", "sh"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tools))
        with pytest.raises(EnvironmentProblem, match="There is no sinfo") as missing:
            cluster.info()
    assert "login host" in missing.value.hint


def test_a_silent_controller_says_nothing_of_jobs(
    cluster: SlurmCluster, lab: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        lines = [
            f"SlurmctldPort={port}" if line.startswith("SlurmctldPort") else line
            for line in [*lab.conf.read_text().splitlines(), "MessageTimeout=2"]
        ]
    conf = tmp_path / "elsewhere.conf"
    conf.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    with pytest.raises(EnvironmentProblem, match="does not answer"):
        cluster.state(["1"])


@pytest.mark.parametrize("keeps_completions", [True, False])
def test_a_job_that_the_controller_forgot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keeps_completions: bool
) -> None:
    with running_slurm(tmp_path / "lab", 1, keeps_completions=keeps_completions, min_job_age_s=2) as lab:
        cluster = opened(lab, tmp_path / "home", monkeypatch)
        job_id = cluster.submit(run_dir(cluster), "#!/bin/bash\n#SBATCH --output=out\nexit 3\n")
        forgotten = wait_for(
            lambda: found if (found := state(cluster, job_id)).source not in ("squeue", "scontrol") else None,
            "the controller to forget the job",
        )
    if keeps_completions:
        assert (forgotten.source, forgotten.slurm_state, forgotten.code) == ("sacct -c", "FAILED", 3)
    else:
        assert (forgotten.source, forgotten.phase) == ("", JobPhase.UNKNOWN)
