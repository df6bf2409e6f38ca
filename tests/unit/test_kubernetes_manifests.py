"""Manifests by what they mean: parsed, held against the schemas of every version, and with hostile values."""

from __future__ import annotations

import base64
import copy
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.errors import InvalidSpec, UserError
from core.contracts.ids import new_run_id
from core.contracts.placement import Placement
from core.contracts.specs import RunSpec
from core.fleet.kubernetes import code_archive, manifest, prepare
from core.fleet.kubernetes.names import hostname, label_value, object_name
from core.fleet.kubernetes.validation import validate
from core.fleet.kubernetes.yaml_text import dump_all
from core.plugins.decode import decode_spec, parse_toml, read_spec
from core.settings.resources import examples_dir

Object = dict[str, Any]
RUN_ID = "20261124-061203-digits-3f9a1c"
NAME = "ph-20261124-061203-digits-3f9a1c"
FULL = {
    "gpus_per_node": 2,
    "cpu": "4",
    "memory": "16Gi",
    "shm": "8Gi",
    "volume_claim": "claim",
    "secrets": ["keys", "tokens"],
    "image_pull_secret": "pull",
    "service_account": "trainer",
    "node_selector": {"example.com/generation": "1e3"},
    "queue": "team-queue",
}


def script_spec(folder: Path, *, launch: Object | None = None, **asked: Any) -> RunSpec:
    """Return a spec of two torchrun nodes with code in ``folder``."""
    (folder / "train.py").write_text("print('hello')\n")
    kubernetes = {"context": "lab", "image": "registry.example/team/train:1", "nodes": 2, **asked}
    mapping = {"kind": "train.script", "name": "digits", "script": str(folder / "train.py"), "launcher": "torchrun"}
    return decode_spec({**mapping, "processes": 3, "launch": {**(launch or {}), "kubernetes": kubernetes}})


def objects_of(spec: RunSpec) -> dict[str, Object]:
    """Return a manifest's objects by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(manifest(spec, RUN_ID))}


def test_an_indexed_job_with_a_headless_service(tmp_path: Path):
    found = objects_of(script_spec(tmp_path))
    assert set(found) == {"ConfigMap", "Service", "Job"}
    assert {one["metadata"]["name"] for one in found.values()} == {NAME}
    assert {one["metadata"]["labels"]["pilothouse.run"] for one in found.values()} == {RUN_ID}
    assert found["Service"]["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"pilothouse.run": RUN_ID},
    }
    job = found["Job"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"], job["backoffLimit"]) == ("Indexed", 2, 2, 0)
    pod = job["template"]
    assert pod["metadata"]["labels"]["pilothouse.run"] == RUN_ID
    assert pod["spec"]["subdomain"] == NAME
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60
    container = pod["spec"]["containers"][0]
    assert container["image"] == "registry.example/team/train:1"
    assert container["command"][:4] == ["python", "-P", "-m", "core.cli.pod"]
    assert "resources" not in container
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["run-files"]["configMap"] == {"name": NAME}
    assert volumes["home"] == {"name": "home", "emptyDir": {}}


def test_everything_that_can_be_asked_for_is_in_the_pod(tmp_path: Path):
    found = objects_of(script_spec(tmp_path, **FULL, retries=2))
    job = found["Job"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    assert job["spec"]["backoffLimit"] == 4
    assert job["spec"]["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["resources"] == {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"nvidia.com/gpu": "2"}}
    assert [one["secretRef"]["name"] for one in container["envFrom"]] == ["keys", "tokens"]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["serviceAccountName"] == "trainer"
    assert spec["nodeSelector"] == {"example.com/generation": "1e3"}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["home"]["persistentVolumeClaim"] == {"claimName": "claim"}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"run-files": "/etc/pilothouse/run", "home": "/pilothouse", "shared-memory": "/dev/shm"}


def test_a_job_set_restarts_all_its_pods_and_makes_its_own_service(tmp_path: Path):
    found = objects_of(script_spec(tmp_path, **FULL, form="jobset", retries=2))
    assert set(found) == {"ConfigMap", "JobSet"}
    spec = found["JobSet"]["spec"]
    assert spec["network"]["enableDNSHostnames"] is True
    assert spec["failurePolicy"] == {"maxRestarts": 2}
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert (job["completions"], job["backoffLimit"]) == (2, 0)


def test_a_train_job_patches_the_torch_runtime(tmp_path: Path):
    found = objects_of(script_spec(tmp_path, **FULL, form="trainjob"))
    assert set(found) == {"ConfigMap", "TrainJob"}
    spec = found["TrainJob"]["spec"]
    assert spec["runtimeRef"] == {"name": "torch-distributed"}
    assert spec["trainer"]["numNodes"] == 2
    assert spec["trainer"]["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "2"}
    job = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = job["template"]["spec"]["template"]["spec"]
    secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    assert secrets == ["keys", "tokens"]  # a TrainJob has no envFrom: the pod reads them from files
    assert "--secrets" in spec["trainer"]["command"]


@pytest.mark.parametrize("form", ["job", "jobset", "trainjob"])
def test_spec_placement_and_code_travel_in_the_config_map(form: str, tmp_path: Path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "part.py").write_text("x = 1\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "big").write_bytes(bytes(10))
    spec = script_spec(tmp_path, form=form, gpus_per_node=2)
    launch = prepare(spec, RUN_ID)
    config = next(one for one in yaml.safe_load_all(launch.manifest) if one["kind"] == "ConfigMap")
    assert decode_spec(parse_toml(config["data"]["spec.toml"])) == spec
    placement = msgspec.json.decode(config["data"]["placement.json"], type=Placement)
    assert placement == launch.placement
    assert [node.node for node in placement.nodes] == ["node0", "node1"]
    assert [node.address for node in placement.nodes] == [hostname(form, NAME, index) for index in (0, 1)]
    assert {node.processes for node in placement.nodes} == {3}
    assert {node.devices for node in placement.nodes} == {(0, 1)}
    assert placement.rendezvous is not None
    assert len(placement.rendezvous.token) >= 32
    code_archive.unpack(base64.b64decode(config["binaryData"]["code.tar.gz"]), tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()) == [
        "lib/part.py",
        "train.py",
    ]
    assert placement.copies[0].here == str(tmp_path)


# -- validation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.32", "1.33", "1.34", "1.35", "1.36", "1.37"])
def test_manifests_hold_against_the_schemas_of_every_version(version: str, tmp_path: Path):
    for form in ("job", "jobset", "trainjob"):
        validate(yaml.safe_load_all(manifest(script_spec(tmp_path, **FULL, form=form), RUN_ID)), version)


def _renamed(one: Object, path: str, wrong: str) -> Object:
    """Return a copy in which the key at a dotted path has another name."""
    changed = copy.deepcopy(one)
    *way, last = path.split(".")
    place: Any = changed
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[wrong] = place.pop(last)
    return changed


@pytest.mark.parametrize(
    ("form", "kind", "path", "wrong"),
    [
        ("job", "Job", "spec.parallelism", "paralelism"),
        ("job", "Job", "spec.template.spec.containers.0.resources", "resource"),
        ("job", "Service", "spec.publishNotReadyAddresses", "publishNotReady"),
        ("job", "ConfigMap", "data", "content"),
        ("jobset", "JobSet", "spec.failurePolicy.maxRestarts", "maxRestart"),
        ("jobset", "JobSet", "spec.replicatedJobs.0.template.spec.backoffLimit", "backofLimit"),
        ("jobset", "JobSet", "spec.replicatedJobs.0.template.spec.template.spec.subdomain", "subDomain"),
        ("trainjob", "TrainJob", "spec.trainer.numNodes", "nodes"),
        ("trainjob", "TrainJob", "spec.runtimePatches.0.trainingRuntimeSpec.template.spec.replicatedJobs", "jobs"),
        ("trainjob", "TrainJob", "spec.runtimeRef", "runtime"),
    ],
)
def test_a_misspelt_field_is_refused_and_named(form: str, kind: str, path: str, wrong: str, tmp_path: Path):
    one = objects_of(script_spec(tmp_path, **FULL, form=form))[kind]
    validate([one])
    with pytest.raises(UserError) as caught:
        validate([_renamed(one, path, wrong)])
    assert wrong in str(caught.value) or path.rsplit(".", 1)[-1].lower() in str(caught.value).lower().replace("_", "")


def test_a_wrong_type_is_refused(tmp_path: Path):
    for form, kind, path in [("job", "Job", "completions"), ("jobset", "JobSet", "failurePolicy")]:
        one = objects_of(script_spec(tmp_path, form=form))[kind]
        one["spec"][path] = "two"
        with pytest.raises(UserError):
            validate([one])


# -- hostile values -------------------------------------------------------------------------------------------------

HOSTILE = [
    "a'b\"c",
    "$(HOME) $HOME `id`",
    "line\nkind: Pod\n---\napiVersion: v1",
    "tab\tand \u2028 separators \x85",
    "é 漢字 \U0001f600",
    "trailing space \nand more",
    "# no comment",
    "- no: list",
    "{{ braces }} | > & * !tag @ %",
    "yes",
    "1e3",
    "0x1F",
    "012",
    "1_000",
    "null",
    "~",
    "",
    "\ufeffbom",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_value_stays_a_value(text: str, tmp_path: Path):
    launch = {"env": {"VALUE": text}, "stop_grace_s": 1.0}
    spec = script_spec(tmp_path, launch=launch, mount_path=f"/data/{text}".split("\n", maxsplit=1)[0].replace(":", ""))
    found = objects_of(spec)
    assert set(found) == {"ConfigMap", "Service", "Job"}
    assert decode_spec(parse_toml(found["ConfigMap"]["data"]["spec.toml"])) == spec
    command = found["Job"]["spec"]["template"]["spec"]["containers"][0]["command"]
    home = spec.launch.kubernetes.mount_path.rstrip("/")
    assert command[-1] == home.replace("$", "$$")  # Kubernetes would put variables in


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner), max_leaves=6)
)
def test_any_text_comes_back_from_yaml(value: Any):
    from core.fleet.kubernetes.yaml_text import load_all

    text = dump_all([{"v": value}])
    assert load_all(text) == [{"v": value}]


def test_words_that_some_parsers_take_for_something_else_are_quoted():
    text = dump_all([{"a": "1e3", "b": "y", "c": "0o7", "d": "1.5.", "e": "plain word", "on": "off", "f": ".inf"}])
    assert '"1e3"' in text
    assert '"y"' in text
    assert '"on": "off"' in text
    assert '".inf"' in text
    assert "e: plain word" in text


# -- names ----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_names_are_valid_and_short_for_any_run_id(text: str):
    for run_id in (text, new_run_id(text)):
        name = object_name(run_id)
        assert re.fullmatch(r"[a-z](?:[-a-z0-9]*[a-z0-9])", name), name
        assert max(len(label) for label in hostname("jobset", name, 9999).split(".")) <= 63
        assert re.fullmatch(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])", label_value(run_id))


def test_two_runs_with_long_names_have_different_objects():
    assert object_name("20261124-061203-" + "a" * 32 + "-000001") != object_name(
        "20261124-061203-" + "a" * 32 + "-000002"
    )


# -- what cannot be asked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"image": ""}, "image"),
        ({"image": "a b"}, "image"),
        ({"mount_path": "relative"}, "mount_path"),
        ({"mount_path": "/etc/pilothouse/run"}, "mount_path"),
        ({"mount_path": "/a/../b"}, "mount_path"),
        ({"mount_path": "/"}, "mount_path"),
        ({"secrets": ["Upper"]}, "secrets"),
        ({"secrets": [""]}, "secrets"),
        ({"namespace": "a/b"}, "namespace"),
        ({"gpu_resource": "nvidia gpu"}, "gpu_resource"),
        ({"node_selector": {"a b": "c"}}, "node_selector"),
        ({"memory": "sixteen"}, "memory"),
        ({"shm": "8GB"}, "shm"),
        ({"volume_claim": "a\nb"}, "volume_claim"),
        ({"retries": 1}, "volume_claim"),
        ({"retries": 1, "volume_claim": "c", "form": "trainjob"}, "retries"),
    ],
)
def test_what_cannot_be_asked_for_is_named_with_its_field(asked: Object, field: str, tmp_path: Path):
    with pytest.raises(InvalidSpec) as caught:
        manifest(script_spec(tmp_path, **asked), RUN_ID)
    assert [problem.field for problem in caught.value.problems] == [f"launch.kubernetes.{field}"]
    assert all(problem.hint for problem in caught.value.problems)


def test_all_problems_come_at_once_and_data_is_not_copied(tmp_path: Path):
    with pytest.raises(InvalidSpec) as caught:
        manifest(script_spec(tmp_path, image="", cpu="x", launch={"copy_data": ["/data"]}), RUN_ID)
    assert [problem.field for problem in caught.value.problems] == [
        "launch.kubernetes.image",
        "launch.kubernetes.cpu",
        "launch.copy_data",
    ]


def test_a_kind_for_one_node_is_not_spread():
    example = read_spec(examples_dir() / "benchmark.toml")
    kubernetes = msgspec.structs.replace(example.launch.kubernetes, image="i", nodes=2)
    spec = msgspec.structs.replace(example, launch=msgspec.structs.replace(example.launch, kubernetes=kubernetes))
    with pytest.raises(InvalidSpec, match="runs on one node"):
        manifest(spec, RUN_ID)


def test_a_second_attempt_needs_a_volume_claim(tmp_path: Path):
    with pytest.raises(InvalidSpec, match="volume claim"):
        prepare(script_spec(tmp_path), RUN_ID, attempt=2)
    assert prepare(script_spec(tmp_path, volume_claim="c"), RUN_ID, attempt=2).placement.attempt == 2


# -- code -----------------------------------------------------------------------------------------------------------


def test_code_that_is_too_large_names_the_other_ways(tmp_path: Path):
    import random

    (tmp_path / "big.bin").write_bytes(random.Random(1).randbytes(1_200_000))
    with pytest.raises(UserError) as caught:
        manifest(script_spec(tmp_path), RUN_ID)
    assert "1201 kB" in caught.value.message
    assert "volume claim" in caught.value.hint
    assert "image" in caught.value.hint


def test_code_that_the_pods_see_by_themselves_does_not_travel(tmp_path: Path):
    found = objects_of(script_spec(tmp_path, launch={"copy_code": "shared"}))
    assert "binaryData" not in found["ConfigMap"]
    assert json.loads(found["ConfigMap"]["data"]["placement.json"])["copies"] == []


def test_the_archive_is_the_same_each_time_and_follows_no_link_out(tmp_path: Path):
    folder, outside = tmp_path / "code", tmp_path / "secret"
    folder.mkdir()
    outside.write_text("secret")
    (folder / "a b'$(x)\n.py").write_text("x")
    (folder / "out").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "same").symlink_to(folder / "a b'$(x)\n.py")
    (folder / "note.ckpt").write_text("x")
    packed = code_archive.pack(folder, ["*.ckpt"])
    assert packed == code_archive.pack(folder, ["*.ckpt"])
    code_archive.unpack(packed, tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a b'$(x)\n.py", "same"]
    assert (tmp_path / "made" / "same").read_text() == "x"
