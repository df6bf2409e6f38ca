"""Whole runs on the stand-in for Kubernetes: real kubectl, real pods' processes, the mirror from logs alone."""

from __future__ import annotations

import base64
import copy
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.contracts.ids import RunId
from core.contracts.mirrors import LinkRecord
from core.contracts.states import RunState
from core.fleet.kubernetes import KubernetesFollower, pod_reader
from core.fleet.kubernetes.names import INDEX_LABEL, object_name
from core.jobs.records import ExitRecord, SupervisorRecord, read_record
from core.plugins.decode import decode_spec
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from tests.helpers.kube_lab import KubeLab, opened_kube_lab
from tests.helpers.lab import opened_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def lab(tmp_path: Path, pilothouse_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeLab]:
    with opened_kube_lab(tmp_path, pilothouse_home, monkeypatch) as opened:
        yield opened


def events_of(run_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return every event without what differs from one run to the next: times, and which node it was."""
    found: list[tuple[str, dict[str, Any]]] = []
    for file in read_batch(run_dir, {}, 64 << 20).files:
        assert file.damaged_lines == 0
        if file.name.startswith("telemetry"):
            continue
        for event in file.events:
            plain = msgspec.to_builtins(event)
            if plain["type"] == "progress":
                continue  # how many of them are written depends on the time
            kept = {key: value for key, value in plain.items() if key not in {"ts", "seq"}}
            found.append((re.sub(r"\.(local|node0)\.", ".", file.name), kept))
    return found


def link_of(lab: KubeLab, run_id: RunId, node: str = "node0") -> LinkRecord:
    record = read_record(RunLayout(lab.home.run_dir(run_id)).link(node), LinkRecord)
    assert record is not None
    return record


def exit_of(lab: KubeLab, run_id: RunId, node: str = "node0") -> ExitRecord:
    record = read_record(RunLayout(lab.home.run_dir(run_id)).exit_record(node), ExitRecord)
    assert record is not None
    return record


def is_over(follower: KubernetesFollower) -> None:
    assert follower.wait(90), "the run was not over in time"


def assert_same_bytes(lab: KubeLab, run_id: RunId) -> None:
    """Compare every append-only file in the pods with its mirror."""
    compared = 0
    for path in lab.api.machine.folder.rglob(f"{run_id}/*.*"):
        if path.name.startswith(("events.", "stdout.", "telemetry.")) and path.is_file():
            assert (lab.home.run_dir(run_id) / path.name).read_bytes() == path.read_bytes(), path.name
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("form", ["job", "jobset", "trainjob"])
def test_a_run_in_a_pod_leaves_the_same_history_as_one_here(form: str, lab: KubeLab, tmp_path: Path):
    fields: dict[str, Any] = {"steps": 6, "step_s": 0.01}
    lab.api.put("secrets", _secret("keys", TOY_KEY="from the cluster"))
    spec = lab.toy(**fields, asked={"form": form, "secrets": ["keys"], "mount_path": "/a b$(HOME)'\""})
    run_id = lab.launch(spec)
    is_over(lab.follow(spec, run_id))
    with opened_lab(type(lab.home)(tmp_path / "here")) as here:
        local_id = here.launch(**fields)
        here.ended(local_id)
        assert events_of(lab.home.run_dir(run_id)) == events_of(here.home.run_dir(local_id))
    assert_same_bytes(lab, run_id)
    assert exit_of(lab, run_id).state is RunState.SUCCEEDED
    link = link_of(lab, run_id)
    assert link.is_complete
    assert link.is_reachable
    assert link.standing is not None
    assert (link.standing.state, link.standing.pids) == (RunState.SUCCEEDED, ())
    assert (lab.home.run_dir(run_id) / "environment.json").exists()
    assert run_id in lab.told
    lab.cluster(spec).delete(run_id)
    assert lab.cluster(spec).left_of(run_id) == ()


def _secret(name: str, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def test_secrets_and_code_reach_the_worker(lab: KubeLab, tmp_path: Path):
    code = tmp_path / "my code"
    code.mkdir()
    (code / "part.py").write_text("WORD = 'from the snapshot'\n")
    (code / "train.py").write_text("import os, part\nprint(part.WORD, os.environ['TOY_KEY'], flush=True)\n")
    lab.api.put("secrets", _secret("keys", TOY_KEY="from the secret"))
    for form in ("job", "trainjob"):
        spec = lab.toy(asked={"form": form, "secrets": ["keys"]})
        launch = msgspec.to_builtins(spec.launch)
        script = decode_spec({"kind": "train.script", "script": str(code / "train.py"), "launch": launch})
        run_id = lab.launch(script)
        is_over(lab.follow(script, run_id))
        said = RunLayout(lab.home.run_dir(run_id)).stdout("node0").read_text()
        assert "from the snapshot from the secret" in said
        assert exit_of(lab, run_id).state is RunState.SUCCEEDED


def test_a_stream_that_is_cut_twice_and_then_gone_loses_and_doubles_nothing(lab: KubeLab):
    spec = lab.toy(steps=120, step_s=0.05)
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)
    for lines in (10, 60):
        wait_for(lambda lines=lines: lab.lines(run_id, "events.node0.worker.jsonl") >= lines, f"{lines} lines")
        lab.api.refuse("/log$", 410, times=2)
        lab.api.cut_logs()
    is_over(follower)
    assert_same_bytes(lab, run_id)
    streams = [request for request in lab.api.requests if request.endswith("/log")]
    assert len(streams) >= 5
    assert exit_of(lab, run_id).state is RunState.SUCCEEDED


def test_a_stream_that_falls_silent_is_taken_up_again(lab: KubeLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pod_reader, "SILENT_LIMIT_S", 7.0)
    spec = lab.toy(steps=60, step_s=0.05)
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 10, "10 lines")
    lab.api.stall_logs()
    is_over(follower)
    assert_same_bytes(lab, run_id)


def test_lines_that_the_cluster_threw_away_are_blank_here_and_said(lab: KubeLab):
    spec = lab.toy(steps=60, hold_at=40, step_s=0.01)
    run_id = lab.launch(spec)
    inside = lab.pod_file("events.node0.worker.jsonl")
    wait_for(lambda: inside.read_bytes().count(b'"metric"') >= 40, "step 40")
    wait_for(lambda: len(next(iter(lab.api.logs.values())).lines) > 8, "lines in the pod's log")
    lab.api.rotate_logs(keep=2)
    follower = lab.follow(spec, run_id)
    lab.cluster(spec).stop(run_id, "/pilothouse/runs/" + run_id)
    is_over(follower)
    mirrored = (lab.home.run_dir(run_id) / inside.name).read_bytes()
    assert len(mirrored) == inside.stat().st_size
    blank = len(mirrored) - len(mirrored.lstrip())
    assert blank > 0
    assert mirrored[blank:] == inside.read_bytes()[blank:]
    assert exit_of(lab, run_id).state is RunState.STOPPED


def test_of_two_windows_one_writes_and_the_other_takes_over(lab: KubeLab):
    spec = lab.toy(steps=60, step_s=0.05)
    run_id = lab.launch(spec)
    first = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 5, "5 lines")
    second = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 20, "20 lines")
    first.close()
    is_over(second)
    assert_same_bytes(lab, run_id)


def test_a_window_that_was_closed_goes_on_where_it_was(lab: KubeLab):
    spec = lab.toy(steps=40, step_s=0.05)
    run_id = lab.launch(spec)
    first = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 10, "10 lines")
    first.close()
    before = (lab.home.run_dir(run_id) / "events.node0.worker.jsonl").read_bytes()
    is_over(lab.follow(spec, run_id))
    assert (lab.home.run_dir(run_id) / "events.node0.worker.jsonl").read_bytes().startswith(before)
    assert_same_bytes(lab, run_id)


def test_a_cluster_that_does_not_answer_fails_nothing(lab: KubeLab):
    spec = lab.toy(steps=100, hold_at=4, launch={"stop_grace_s": 20})
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 4, "some lines")
    lab.api.refuse(".*", 401)
    lab.api.cut_logs()
    wait_for(lambda: not link_of(lab, run_id).is_reachable, "the link to be lost")
    link = link_of(lab, run_id)
    assert "401" in link.message
    assert link.standing is None or link.standing.state is None
    assert not follower.is_over
    lab.api.allow_all()
    wait_for(lambda: link_of(lab, run_id).is_reachable, "the link to heal")
    lab.cluster(spec).stop(run_id)
    is_over(follower)
    assert_same_bytes(lab, run_id)


def test_a_stop_from_inside_leaves_the_pods_logs_for_a_window_that_comes_later(lab: KubeLab):
    spec = lab.toy(steps=100, hold_at=5, asked={"volume_claim": "claim", "retries": 3})
    run_id = lab.launch(spec)
    inside = lab.pod_file("events.node0.worker.jsonl")
    wait_for(lambda: inside.read_bytes().count(b"\n") >= 5, "step 5")
    cluster = lab.cluster(spec)
    cluster.stop(run_id, "/pilothouse/runs/" + run_id)
    wait_for(lambda: cluster.state(run_id).state is RunState.SUCCEEDED, "the job to be done")
    is_over(lab.follow(spec, run_id))
    assert exit_of(lab, run_id).state is RunState.STOPPED
    assert "on request" in exit_of(lab, run_id).message
    assert_same_bytes(lab, run_id)
    assert len(lab.api.all("pods")) == 1  # it was not started again


def test_a_stop_of_a_run_that_waits_for_a_place_ends_it_as_stopped(lab: KubeLab):
    spec = lab.toy(asked={"gpus_per_node": 16})
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)

    def waits() -> bool:
        path = RunLayout(lab.home.run_dir(run_id)).link("node0")
        standing = link_of(lab, run_id).standing if path.exists() else None
        return standing is not None and standing.state is RunState.QUEUED and "nvidia.com/gpu" in standing.message

    wait_for(waits, "the reason to be shown")
    RunLayout(lab.home.run_dir(run_id)).stop_request.touch()
    lab.cluster(spec).stop(run_id, "/pilothouse/runs/" + run_id)
    is_over(follower)
    standing = link_of(lab, run_id).standing
    assert standing is not None
    assert standing.state is RunState.STOPPED


def test_a_stop_leaves_no_pod_that_would_begin_later_and_wait_for_the_others(lab: KubeLab):
    spec = lab.toy(steps=100, hold_at=5)
    run_id = lab.launch(spec)
    events = lab.pod_file("events.node0.worker.jsonl")
    wait_for(lambda: events.read_bytes().count(b'"metric"') >= 5, "step 5")
    (running,) = lab.api.all("pods")
    waiting = copy.deepcopy(running)
    waiting["metadata"] |= {"name": f"{running['metadata']['name']}-2", "uid": "2"}
    waiting["metadata"]["labels"][INDEX_LABEL] = waiting["metadata"]["annotations"][INDEX_LABEL] = "1"
    waiting["status"] = {"phase": "Pending", "conditions": []}
    lab.api.put("pods", waiting)
    cluster = lab.cluster(spec)
    cluster.stop(run_id, "/pilothouse/runs/" + run_id)
    wait_for(lambda: not [left for left in cluster.left_of(run_id) if left.startswith("pod/")], "no pod of the run", 60)
    assert not lab.api.machine.live_processes()


def test_a_stop_where_pods_must_not_be_entered_still_saves_and_its_last_words_arrive(lab: KubeLab):
    lab.api.refuse("/exec", 403)
    spec = lab.toy(steps=100, hold_at=5, checkpoint_every=100)
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 5, "step 5")
    cluster = lab.cluster(spec)
    cluster.stop(run_id, "/pilothouse/runs/" + run_id)
    is_over(follower)
    assert exit_of(lab, run_id).state is RunState.STOPPED
    kinds = [event["type"] for _, event in events_of(lab.home.run_dir(run_id))]
    assert "checkpoint" in kinds
    assert cluster.left_of(run_id)  # the ConfigMap and the service
    cluster.delete(run_id)
    assert cluster.left_of(run_id) == ()
    assert not lab.api.machine.live_processes()


def test_a_pod_that_dies_at_once_leaves_the_run_lost_with_the_reason(lab: KubeLab):
    spec = lab.toy(steps=100, hold_at=3)
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 3, "step 3")
    for pid in lab.api.machine.live_processes():
        os.kill(pid, signal.SIGKILL)
    is_over(follower)
    standing = link_of(lab, run_id).standing
    assert standing is not None
    assert standing.state is RunState.FAILED
    assert "killed (137)" in standing.message
    assert "memory" in standing.hint


def test_an_image_without_the_worker_package_is_named(lab: KubeLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lab.api.machine, "hides_package", True)
    spec = lab.toy()
    run_id = lab.launch(spec)
    is_over(lab.follow(spec, run_id))
    standing = link_of(lab, run_id).standing
    assert standing is not None
    assert standing.state is RunState.FAILED
    assert "worker package" in standing.message
    assert "pilothouse_worker" in standing.hint


def test_a_failed_pod_is_replaced_and_goes_on_from_its_checkpoint(lab: KubeLab):
    spec = lab.toy(steps=12, hold_at=7, asked={"volume_claim": "claim", "retries": 1})
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)
    wait_for(lambda: lab.lines(run_id, "events.node0.worker.jsonl") >= 7, "step 7")
    record = read_record(RunLayout(lab.home.run_dir(run_id)).supervisor("node0"), SupervisorRecord)
    assert record is not None
    assert record.worker is not None
    os.kill(record.worker.pid, signal.SIGKILL)
    is_over(follower)
    assert exit_of(lab, run_id).state is RunState.SUCCEEDED
    attempts = [e for _, e in events_of(lab.home.run_dir(run_id)) if e["type"] == "attempt"]
    assert [(e["attempt"], e["resumed_from_step"]) for e in attempts] == [(1, None), (2, 6)]
    assert_same_bytes(lab, run_id)
    pods = [one for one in lab.api.all("pods") if one["metadata"]["name"].startswith(object_name(run_id))]
    assert [one["status"]["phase"] for one in pods] == ["Failed", "Succeeded"]


def test_catching_up_brings_what_was_written_before(lab: KubeLab):
    spec = lab.toy(steps=30, hold_at=20)
    run_id = lab.launch(spec)
    follower = lab.follow(spec, run_id)
    inside = lab.pod_file("events.node0.worker.jsonl")
    wait_for(lambda: b'"step": 20' in inside.read_bytes() or b'"step":20' in inside.read_bytes(), "step 20 in the pod")
    written = inside.read_bytes()
    assert follower.catch_up(30)
    assert (lab.home.run_dir(run_id) / inside.name).read_bytes().startswith(written)


DDP = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
print("rank", dist.get_rank(), "of", dist.get_world_size(), "on", os.environ["PILOTHOUSE_NODE"], total.item(), flush=True)
dist.destroy_process_group()
"""


def test_two_pods_meet_by_torchrun(lab: KubeLab, tmp_path: Path):
    (tmp_path / "code").mkdir()
    script = tmp_path / "code" / "train.py"
    script.write_text(DDP)
    launch = msgspec.to_builtins(lab.toy(asked={"nodes": 2}).launch)
    mapping = {"kind": "train.script", "script": str(script), "launcher": "torchrun", "processes": 1, "device": "cpu"}
    spec = decode_spec({**mapping, "launch": launch})
    run_id = lab.launch(spec)
    is_over(lab.follow(spec, run_id))
    layout = RunLayout(lab.home.run_dir(run_id))
    said = layout.stdout("node0").read_text() + layout.stdout("node1").read_text()
    assert re.search(r"rank 0 of 2 on node\d 3\.0", said), said
    assert re.search(r"rank 1 of 2 on node\d 3\.0", said), said
    for node in ("node0", "node1"):
        assert exit_of(lab, run_id, node).state is RunState.SUCCEEDED
    assert_same_bytes(lab, run_id)
