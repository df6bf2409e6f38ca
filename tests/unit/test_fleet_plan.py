"""Names of nodes, likely addresses and refused requests, as planned; the planning itself is tested with real hosts."""

from __future__ import annotations

import pytest

from core.contracts.errors import UserError
from core.contracts.hosts import HostRecord
from core.contracts.placement import NodePlacement, Placement, Rendezvous
from core.contracts.specs import LaunchSpec
from core.fleet.plan import address_candidates, check_hosts_of, node_names, plan_text
from core.fleet.remote_runs import engine_of
from core.plugins.decode import decode_spec


def test_names_are_safe_in_file_names_and_unique() -> None:
    assert node_names(["gpu-1.lab.org", "gpu-1-lab-org", "local"], {}) == ("gpu-1-lab-org", "gpu-1-lab-org-2", "local")


def test_a_name_keeps_its_host_and_its_role() -> None:
    taken = {"a": ("a", True), "b": ("b", False)}
    assert node_names(["a", "b"], taken) == ("a", "b")
    assert node_names(["a", "c"], taken) == ("a", "c")
    assert node_names(["b", "a"], taken) == ("b-2", "a-2")
    assert node_names(["a", "b"], {**taken, "b-2": ("b", True), "a-2": ("a", False)}) == ("a", "b")


def test_an_address_near_the_other_hosts_comes_first_and_bridges_come_last() -> None:
    head = HostRecord(name="h")
    interfaces = [
        ("docker0", "172.17.0.1"),
        ("wlan0", "192.168.7.5"),
        ("eth0", "10.1.0.5"),
        ("eth0", "fd00::5"),
        ("eth1", "fe80::1"),
        ("lo", "127.0.0.1"),
    ]
    others = [[("docker0", "172.17.0.1"), ("eth0", "10.1.0.9")], [("ib0", "10.1.3.9")]]
    assert address_candidates(head, interfaces, others) == ["10.1.0.5", "192.168.7.5", "fd00::5", "172.17.0.1"]
    named = HostRecord(name="h", peer_address="head.example")
    assert address_candidates(named, interfaces, others) == ["head.example"]
    bound = HostRecord(name="h", interface="wlan0")
    assert address_candidates(bound, interfaces, others) == ["192.168.7.5"]


@pytest.mark.parametrize(
    ("kind", "launch", "said"),
    [
        ("infer.benchmark", {"hosts": ["a", "b"]}, "runs on one host, not on 2"),
        ("train.script", {"hosts": ["a", "a"]}, "named twice"),
        ("train.script", {"hosts": ["a"], "devices": "b=0"}, "'b', which is no host"),
    ],
)
def test_what_cannot_be_placed_is_refused(kind: str, launch: dict[str, object], said: str) -> None:
    fields = {"script": "x.py"} if kind == "train.script" else {}
    with pytest.raises(UserError, match=said):
        check_hosts_of(decode_spec({"kind": kind, "launch": launch, **fields}))


def test_one_way_at_a_time() -> None:
    assert engine_of(LaunchSpec()) is None
    assert engine_of(LaunchSpec(hosts=("local",))) is None
    assert engine_of(LaunchSpec(hosts=("a",))) == "direct"
    both = decode_spec({"kind": "train.image", "launch": {"hosts": ["a"], "slurm": {"cluster": "b"}}}).launch
    with pytest.raises(UserError, match="to hosts and to Slurm"):
        engine_of(both)


def test_the_plan_as_text_names_hosts_devices_and_where_they_meet() -> None:
    nodes = tuple(
        NodePlacement(
            node=n, host=n, address=f"10.0.0.{i}", interface="eth0", devices=(i,), run_dir="/w/runs/r", python="p"
        )
        for i, n in enumerate(("a", "b"))
    )
    text = plan_text(Placement(nodes=nodes, rendezvous=Rendezvous(port=5, watch_port=6, token="secret")))
    assert "a: head, 1 x GPU 0, reached at 10.0.0.0 (eth0)" in text
    assert "They meet at 10.0.0.0:5." in text
    assert "secret" not in text
