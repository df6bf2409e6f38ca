"""Each thing that can stand against a launch is found, at its level, with a remedy; a host in order has no complaint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from core.contracts.hosts import Finding, FindingLevel, HostGpu, HostRecord, RuntimeRecord
from core.contracts.links import Link
from core.fleet.between_hosts import Member, version_findings
from core.fleet.demands import Demands, demands_of
from core.fleet.host_facts import DiskFacts, HostFacts, PathFacts, PythonFacts
from core.fleet.host_findings import host_findings
from core.fleet.self_test_answer import SelfTest, TorchFacts
from core.fleet.worker_wheel import worker_version
from core.plugins.decode import read_spec
from core.settings.resources import examples_dir
from core.train.tasks.language import LanguageTrainingSpec

OK, WARNING, ERROR = FindingLevel.OK, FindingLevel.WARNING, FindingLevel.ERROR
GIB = 1 << 30


def disk(free_bytes: int, *, is_network: bool | None = False) -> DiskFacts:
    return DiskFacts(total_bytes=1000 * GIB, free_bytes=free_bytes, mount="/data", kind="ext4", is_network=is_network)


def gpu(index: int, *held_by: str, used: int = 0) -> HostGpu:
    return HostGpu(index=index, name="NVIDIA H100", memory_bytes=80 * GIB, memory_used_bytes=used, held_by=held_by)


GOOD = HostFacts(
    user="ada",
    home="/home/ada",
    hostname="gpu1",
    kernel="Linux 6.1.0",
    arch="x86_64",
    os_name="Debian GNU/Linux 12",
    libc="glibc 2.36",
    glibc=(2, 36),
    cpus=32,
    memory_total_bytes=256 * GIB,
    memory_available_bytes=200 * GIB,
    clock_skew_s=0.01,
    clock_doubt_s=0.005,
    limits={"open files": 65536, "processes": None, "locked memory": None},
    shm=disk(100 * GIB),
    kills_user_processes=False,
    work_dir="/home/ada/.pilothouse",
    work_dir_exists=True,
    is_work_dir_writable=True,
    work_disk=disk(500 * GIB),
    pythons=(PythonFacts(path="/usr/bin/python3", version=(3, 11, 2)),),
    gpus=(gpu(0), gpu(1)),
    driver="550.54.15",
    driver_cuda=(12, 4),
    index="https://pypi.org/simple",
    index_answers=True,
)
TORCH = TorchFacts(version="2.6.0+cu124", cuda="12.4", gpus=(), collectives={})
TESTED = SelfTest(
    python="3.11.2",
    worker_version=worker_version(),
    missing={},
    packages={"numpy": "2.0.0"},
    kinds=6,
    broken_kinds=(),
    torch=TORCH,
)
DEMANDS = Demands(
    paths=(), ranks=2, devices="auto", waits=False, checkpoint_bytes=GIB, copied_bytes=0, is_training=True
)
READY = HostRecord(name="gpu1", runtime=RuntimeRecord(kind="managed", python="/p"))


def found(
    facts: HostFacts = GOOD,
    tested: SelfTest | None = TESTED,
    demands: Demands | None = DEMANDS,
    record: HostRecord = READY,
) -> dict[str, list[Finding]]:
    by_topic: dict[str, list[Finding]] = {}
    for one in host_findings(record, facts, tested, demands):
        by_topic.setdefault(one.topic, []).append(one)
    return by_topic


def worst(findings: list[Finding]) -> Finding:
    return max(findings, key=lambda one: [*FindingLevel].index(one.level))


def test_a_host_in_order_has_no_complaint() -> None:
    everything = [one for findings in found().values() for one in findings]
    assert [one for one in everything if one.level is not OK] == []
    assert {one.topic for one in everything} >= {
        "system", "clock", "folder", "limits", "shm", "memory", "disk", "gpus", "devices", "torch", "worker"
    }  # fmt: skip


BUSY = (gpu(0, "20261124-digits-1a2b3c"), gpu(1, "bob (4711 python)"))

FAULTS: list[tuple[str, dict[str, Any], FindingLevel, str]] = [
    ("system", {"kernel": "FreeBSD 14"}, ERROR, "FreeBSD"),
    ("system", {"arch": "riscv64"}, WARNING, "riscv64"),
    ("system", {"glibc": None, "libc": "musl libc"}, WARNING, "musl"),
    ("system", {"glibc": (2, 12)}, ERROR, "2.12"),
    ("system", {"glibc": (2, 17)}, WARNING, "2.28"),
    ("clock", {"clock_skew_s": -95.0}, WARNING, "95.0 s behind"),
    ("clock", {"clock_skew_s": None}, WARNING, "could not be read"),
    ("folder", {"is_work_dir_writable": False}, ERROR, "cannot be written"),
    ("logout", {"kills_user_processes": True}, ERROR, "would not survive"),
    ("limits", {"limits": {"open files": 1024}}, WARNING, "1024 files"),
    ("limits", {"limits": {"processes": 200}}, WARNING, "200 processes"),
    ("limits", {"limits": {"locked memory": 65536}}, WARNING, "64 KiB"),
    ("shm", {"shm": None}, ERROR, "no /dev/shm"),
    ("shm", {"shm": disk(64 << 20)}, WARNING, "64 MiB"),
    ("memory", {"memory_available_bytes": GIB}, WARNING, "1.0 GiB"),
    ("disk", {"work_disk": disk(GIB)}, ERROR, "checkpoints 1.0 GiB"),
    ("disk", {"work_disk": None}, WARNING, "could not be told"),
    ("gpus", {"gpus": (), "nvidia_problem": "Driver/library version mismatch"}, ERROR, "mismatch"),
    ("devices", {"gpus": (gpu(0),)}, ERROR, "1 of the 2 GPUs"),
    ("devices", {"gpus": BUSY}, WARNING, "GPU 0 is held by 20261124-digits-1a2b3c; GPU 1 is held by bob (4711 python)"),
    ("devices", {"gpus": (gpu(0), gpu(1, used=30 * GIB))}, WARNING, "GPU 1 is held by somebody"),
    ("torch", {"driver_cuda": (11, 8), "driver": "470.1"}, ERROR, "built for CUDA 12.4"),
    ("paths", {"paths": (PathFacts(path="/d", exists=True, is_readable=False, disk=None),)}, ERROR, "may not be read"),
    ("paths", {"paths": (PathFacts(path="/d", exists=False, is_readable=False, disk=None),)}, ERROR, "is not there"),
]  # fmt: skip


@pytest.mark.parametrize(("topic", "changes", "level", "words"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_of_the_host_is_found_with_a_remedy(
    topic: str, changes: dict[str, Any], level: FindingLevel, words: str
) -> None:
    one = worst(found(replace(GOOD, **changes))[topic])
    assert one.level is level
    assert words in one.what
    assert one.remedy


def test_what_is_wrong_with_the_environment() -> None:
    none = found(tested=None, record=HostRecord(name="gpu1"))["python"][0]
    assert (none.level, "--managed" in none.remedy) == (ERROR, True)
    assert found(tested=None, demands=None, record=HostRecord(name="gpu1"))["python"][0].level is WARNING
    old = found(tested=SelfTest(**{**fields(TESTED), "worker_version": "0.0.1+h1"}))["worker"]
    assert (worst(old).level, "0.0.1+h1" in worst(old).what) == (WARNING, True)
    missing = found(tested=SelfTest(**{**fields(TESTED), "missing": {"psutil": "ImportError: no"}}))["packages"]
    assert (missing[0].level, "psutil" in missing[0].what) == (ERROR, True)
    cpu = found(
        tested=SelfTest(
            **{**fields(TESTED), "torch": TorchFacts(version="2.6.0+cpu", cuda="", gpus=(), collectives={})}
        )
    )
    assert (worst(cpu["torch"]).level, "built for CPU" in worst(cpu["torch"]).what) == (WARNING, True)
    without = found(tested=SelfTest(**{**fields(TESTED), "torch": None}))["torch"][0]
    assert (without.level, "not installed" in without.what) == (WARNING, True)


def fields(struct: SelfTest) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


@pytest.mark.parametrize(
    ("devices", "waits", "level"),
    [
        ("cpu", False, None),
        ("0", False, OK),
        ("1", False, WARNING),
        ("gpu1=0 other=1", False, OK),
        ("auto", True, OK),
        ("7", False, ERROR),
        ("zero", False, ERROR),
    ],
)
def test_devices_that_were_asked_for(devices: str, waits: bool, level: FindingLevel | None) -> None:
    facts = replace(GOOD, gpus=(gpu(0), gpu(1, "bob (1 x)")))
    topics = found(facts, demands=replace(DEMANDS, devices=devices, waits=waits))
    assert [one.level for one in topics.get("devices", [])] == ([] if level is None else [level])


def test_the_interpreter_to_build_on_is_not_the_newest_for_which_packages_may_lack() -> None:
    versions = [(3, 9, 1), (3, 14, 0), (3, 12, 4), (3, 13, 1)]
    facts = replace(GOOD, pythons=tuple(PythonFacts(path=str(v), version=v) for v in versions))
    base = facts.newest_python((3, 11))
    assert base is not None
    assert base.version == (3, 13, 1)
    only_new = replace(facts, pythons=facts.pythons[1:2]).newest_python((3, 11))
    assert only_new is not None
    assert only_new.version == (3, 14, 0)
    assert replace(facts, pythons=facts.pythons[:1]).newest_python((3, 11)) is None


def test_what_a_run_asks_of_its_hosts(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    (data / "a.txt").write_bytes(b"x" * 5000)
    (data / "b.pyc").write_bytes(b"x" * 5000)
    spec_file = tmp_path / "spec.toml"
    text = (examples_dir() / "stdlib-lm.toml").read_text(encoding="utf-8")
    spec_file.write_text(text, encoding="utf-8")
    spec = read_spec(spec_file)
    assert isinstance(spec, LanguageTrainingSpec)
    named = msgspec.structs.replace(spec, data=msgspec.structs.replace(spec.data, data=str(data)))
    asked = demands_of(named)
    assert asked.paths == (("data.data", str(data)),)
    assert asked.checkpoint_bytes is not None
    assert asked.checkpoint_bytes > 1 << 20
    copied = demands_of(
        msgspec.structs.replace(named, launch=msgspec.structs.replace(named.launch, copy_data=(str(data),)))
    )
    assert copied.paths == ()
    assert copied.copied_bytes == 5000


def test_hosts_with_other_versions_are_told_apart() -> None:
    def member(name: str, tested: SelfTest | None) -> Member:
        return Member(record=HostRecord(name=name), link=cast("Link", None), facts=GOOD, tested=tested)

    other = SelfTest(
        **{
            **fields(TESTED),
            "python": "3.12.1",
            "packages": {"numpy": "1.26.4"},
            "torch": TorchFacts(version="2.5.1", cuda="12.4", gpus=(), collectives={}),
        }
    )
    by_host = version_findings([member("a", TESTED), member("b", other), member("c", TESTED), member("d", None)])
    assert [one.level for one in by_host["b"]] == [ERROR, WARNING, WARNING]
    assert "2.5.1" in by_host["b"][0].what
    assert [one.level for one in by_host["c"]] == [OK]
    assert "a" not in by_host
    assert "d" not in by_host
