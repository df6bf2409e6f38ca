"""The real kubectl against the stand-in: contexts, rights, apply, states, refusals, deletion."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from core.contracts.errors import EnvironmentProblem
from core.contracts.hosts import FindingLevel
from core.contracts.ids import new_run_id
from core.contracts.states import RunState
from core.fleet.kubernetes import KubernetesCluster, check_cluster, contexts, current_context, prepare
from core.fleet.kubernetes.kubectl import Kubectl, find_kubectl
from core.fleet.kubernetes.names import object_name
from core.fleet.kubernetes.refusals import ClusterRefusal
from core.fleet.kubernetes.yaml_text import dump_all
from tests.helpers.kube_lab import KubeLab, opened_kube_lab
from tests.helpers.waiting import wait_for

HOLD = {"steps": 5, "hold_at": 2, "launch": {"stop_grace_s": 5.0}}


@pytest.fixture
def lab(tmp_path: Path, pilothouse_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeLab]:
    with opened_kube_lab(tmp_path, pilothouse_home, monkeypatch) as opened:
        yield opened


def refusal_of(lab: KubeLab) -> ClusterRefusal:
    with pytest.raises(ClusterRefusal) as caught:
        lab.cluster(lab.toy()).state("20261124-061203-x-3f9a1c")
    return caught.value


def test_contexts_come_from_the_kubeconfig(lab: KubeLab, tmp_path: Path):
    assert contexts(lab.kubeconfig) == ("standin",)
    assert current_context(lab.kubeconfig) == "standin"
    empty = tmp_path / "empty"
    empty.write_text("apiVersion: v1\nkind: Config\n")
    assert contexts(empty) == ()


def test_what_the_cluster_serves_and_what_one_may_do(lab: KubeLab):
    cluster = lab.cluster(lab.toy())
    assert cluster.served_forms() == ("job", "jobset", "trainjob")
    del lab.api.served["jobset.x-k8s.io/v1alpha2"]
    assert cluster.served_forms() == ("job", "trainjob")
    lab.api.denied |= {("create", "jobs"), ("get", "pods/log")}
    assert not cluster.may("create", "jobs.batch")
    assert not cluster.may("get", "pods", "log")
    assert cluster.may("get", "pods")


def test_the_server_checks_first_and_nothing_is_made_when_it_refuses(lab: KubeLab):
    spec = lab.toy()
    run_id = new_run_id("x")
    objects = list(yaml.safe_load_all(prepare(spec, run_id).manifest))
    objects[-1]["spec"]["paralelism"] = objects[-1]["spec"].pop("parallelism")
    with pytest.raises(ClusterRefusal, match="paralelism"):
        lab.cluster(spec).apply(dump_all(objects), run_id)
    assert lab.api.objects == {}
    assert any(request.startswith("PATCH") for request in lab.api.requests)


def test_what_was_made_is_taken_back_when_a_later_object_is_refused(lab: KubeLab):
    spec = lab.toy()
    run_id = new_run_id("x")
    cluster = lab.cluster(spec)
    made = prepare(spec, run_id)
    cluster.try_apply(made.manifest)
    lab.api.controllers.refused.add("jobs")
    with pytest.raises(ClusterRefusal, match="quota"):
        cluster.apply(made.manifest, run_id)
    assert lab.api.objects == {}


def test_an_object_of_another_manager_is_a_conflict(lab: KubeLab):
    spec = lab.toy()
    run_id = new_run_id("x")
    made = prepare(spec, run_id)
    lab.api.put("configmaps", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": object_name(run_id)}})
    lab.api.field_owners["configmaps", object_name(run_id)] = "someone-else"
    with pytest.raises(ClusterRefusal, match="someone-else") as caught:
        lab.cluster(spec).apply(made.manifest, run_id)
    assert caught.value.topic == "conflict"
    assert lab.api.find("jobs", object_name(run_id)) is None


@pytest.mark.parametrize(
    ("code", "topic"), [(401, "unauthorized"), (403, "forbidden"), (409, "conflict"), (410, "gone")]
)
def test_refusals_of_the_server_become_sentences(code: int, topic: str, lab: KubeLab):
    lab.api.refuse("GET .*/pods", code)
    refusal = refusal_of(lab)
    assert refusal.topic == topic
    assert str(code) in refusal.message
    assert refusal.hint


def test_a_slow_server_is_given_up(lab: KubeLab):
    lab.api.delay_s = 3.0
    kubectl = Kubectl("standin", "", lab.kubeconfig)
    with pytest.raises(ClusterRefusal) as caught:
        kubectl.run(["get", "pods"], timeout_s=1.0)
    assert caught.value.topic == "timeout"


def test_a_server_that_is_gone_is_said_so(lab: KubeLab, tmp_path: Path):
    dead = tmp_path / "dead"
    dead.write_text(lab.kubeconfig.read_text().replace(lab.api.url, "http://127.0.0.1:9"))
    with pytest.raises(ClusterRefusal) as caught:
        KubernetesCluster("standin", kubeconfig=dead).served_forms()
    assert caught.value.topic == "unreachable"
    with pytest.raises(ClusterRefusal) as caught:
        KubernetesCluster("no such", kubeconfig=lab.kubeconfig).served_forms()
    assert caught.value.topic == "context"


def test_a_credential_plug_in_that_is_missing_or_fails_is_named(lab: KubeLab, tmp_path: Path):
    config = yaml.safe_load(lab.kubeconfig.read_text())
    # kubectl uses credentials over TLS only; the plug-in is asked before anything is sent.
    config["clusters"][0]["cluster"] = {"server": lab.api.url.replace("http:", "https:")}
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    for command, said in [("no-such-plugin", "'no-such-plugin'"), ("false", "exit code 1")]:
        config["users"][0]["user"] = {"exec": {**plugin, "command": command}}
        path = tmp_path / command
        path.write_text(yaml.safe_dump(config))
        with pytest.raises(ClusterRefusal, match=said) as caught:
            KubernetesCluster("standin", kubeconfig=path).state("20261124-061203-x-3f9a1c")
        assert caught.value.topic == "plugin"


def test_without_kubectl_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(EnvironmentProblem, match="not on this machine"):
        contexts()


def test_kubectl_reads_hostile_values_as_the_text_they_are(lab: KubeLab):
    words = [
        "yes",
        "1e3",
        "0x1F",
        "012",
        "1_000",
        "~",
        "",
        "a'b\"$(c)",
        "x\ny: z\n",
        "\u2028\x85",
        "0o17",
        ".inf",
        "=",
        "1:30",
    ]
    text = dump_all(
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "words"},
                "data": {f"k{place}": word for place, word in enumerate(words)},
            }
        ]
    )
    command = [find_kubectl(), f"--kubeconfig={lab.kubeconfig}", "create", "--dry-run=client", "-o", "json", "-f", "-"]
    done = subprocess.run([*command, "--validate=false"], input=text.encode(), capture_output=True, check=True)
    found = json.loads(done.stdout)["data"]
    assert [found[f"k{place}"] for place in range(len(words))] == words


# -- states ---------------------------------------------------------------------------------------------------------


def test_a_pod_without_a_place_tells_what_is_missing(lab: KubeLab):
    spec = lab.toy(asked={"gpus_per_node": 16})
    run_id = lab.launch(spec)
    state = lab.cluster(spec).state(run_id)
    assert state.state is RunState.QUEUED
    assert "nvidia.com/gpu" in state.message
    assert state.hint


def test_an_image_that_cannot_be_pulled_is_said(lab: KubeLab):
    lab.api.controllers.bad_images.add("img:1")
    spec = lab.toy()
    run_id = lab.launch(spec)
    state = lab.cluster(spec).state(run_id)
    assert state.state is RunState.PREPARING
    assert "cannot be pulled" in state.message
    assert not state.is_over


def test_a_missing_secret_is_said(lab: KubeLab):
    spec = lab.toy(asked={"secrets": ["absent"]})
    state = lab.cluster(spec).state(lab.launch(spec))
    assert "Secret" in state.message


def test_a_quota_that_lets_no_pod_in_is_found_in_the_events(lab: KubeLab):
    lab.api.controllers.quota = True
    spec = lab.toy()
    run_id = lab.launch(spec)
    cluster = lab.cluster(spec)
    state = cluster.state(run_id)
    assert state.state is RunState.QUEUED
    assert "quota pods is used up" in state.message
    event = cluster.events(run_id)[-1]
    assert (event.reason, event.is_warning, event.about) == ("FailedCreate", True, f"job/{object_name(run_id)}")


def test_events_of_other_objects_are_left_out(lab: KubeLab):
    involved = {"kind": "Pod", "name": "ph-other-0"}
    meta = {"name": "e1"}
    lab.api.put(
        "events",
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": meta,
            "involvedObject": involved,
            "reason": "x",
            "type": "Normal",
        },
    )
    assert lab.cluster(lab.toy()).events("20261124-061203-x-3f9a1c") == ()


def test_what_does_not_exist_is_over(lab: KubeLab):
    state = lab.cluster(lab.toy()).state("20261124-061203-x-3f9a1c")
    assert (state.exists, state.state, state.is_over, state.pods) == (False, None, True, ())


@pytest.mark.parametrize("form", ["job", "jobset", "trainjob"])
def test_deletion_leaves_nothing_and_waits_for_the_pods(form: str, lab: KubeLab):
    spec = lab.toy(**HOLD, asked={"form": form})
    run_id = lab.launch(spec)
    cluster = lab.cluster(spec)
    wait_for(lambda: cluster.state(run_id).state is RunState.RUNNING, "the pod to run")
    worker = lab.pod_file("supervisor.node0.json")
    wait_for(lambda: b'"worker": {' in worker.read_bytes(), "the worker to start")
    assert any(left.startswith("pod/") for left in cluster.left_of(run_id))
    lab.api.put("configmaps", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "mine", "labels": {}}})
    cluster.delete(run_id)
    assert cluster.left_of(run_id) == ()
    assert [name for _, name in lab.api.objects] == ["mine"]
    assert not lab.api.machine.live_processes()


def test_a_pod_that_does_not_go_is_named(lab: KubeLab):
    spec = lab.toy(**HOLD)
    run_id = lab.launch(spec)
    cluster = lab.cluster(spec)
    lab.api.controllers.keeps_pods = True
    with pytest.raises(EnvironmentProblem, match="still has of this run: .*pod/"):
        cluster.delete(run_id, timeout_s=0.5)


# -- the check before a launch ----------------------------------------------------------------------------------------


def test_a_cluster_with_everything_passes(lab: KubeLab):
    claim = {"spec": {"accessModes": ["ReadWriteMany"]}}
    lab.api.put(
        "persistentvolumeclaims",
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"}, **claim},
    )
    lab.api.put("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}})
    spec = lab.toy(asked={"volume_claim": "claim", "secrets": ["keys"], "gpus_per_node": 1, "shm": "8Gi"})
    report = check_cluster(lab.cluster(spec), spec)
    assert report.ok
    assert [finding.level for finding in report.findings] == [FindingLevel.OK]


def test_all_that_is_missing_is_found_at_once(lab: KubeLab):
    lab.api.denied |= {("delete", "configmaps"), ("get", "pods/log"), ("create", "pods/exec")}
    del lab.api.served["jobset.x-k8s.io/v1alpha2"]
    asked = {"form": "jobset", "volume_claim": "none", "secrets": ["none"], "queue": "team", "gpus_per_node": 1}
    spec = lab.toy(asked=asked)
    report = check_cluster(lab.cluster(spec), spec)
    assert not report.ok
    found = sorted((finding.topic, str(finding.level)) for finding in report.findings)
    assert found == [
        ("form", "error"),
        ("queue", "error"),
        ("reachable", "ok"),
        ("rights", "error"),
        ("rights", "error"),
        ("rights", "warning"),
        ("secrets", "error"),
        ("shm", "warning"),
        ("volume", "error"),
    ]
    assert all(finding.remedy for finding in report.findings if finding.level is not FindingLevel.OK)


def test_a_claim_for_one_machine_is_a_warning_for_several_pods(lab: KubeLab, tmp_path: Path):
    claim = {"spec": {"accessModes": ["ReadWriteOnce"]}}
    lab.api.put(
        "persistentvolumeclaims",
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"}, **claim},
    )
    spec = lab.toy(asked={"volume_claim": "claim", "nodes": 2})
    report = check_cluster(lab.cluster(spec), spec)
    assert report.ok
    assert "ReadWriteOnce" in report.findings[-1].what


def test_a_cluster_out_of_reach_is_one_finding(lab: KubeLab):
    lab.api.refuse(".*", 401)
    spec = lab.toy()
    report = check_cluster(lab.cluster(spec), spec)
    assert (report.ok, [finding.topic for finding in report.findings]) == (False, ["reachable"])
    assert "401" in report.findings[0].what
