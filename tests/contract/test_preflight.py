"""The pre-flight check on real hosts: all at once, one finding for a host that does not answer, and what lies between."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.contracts.errors import Cancelled
from core.contracts.hosts import CheckReport, Finding, FindingLevel, HostRecord, RuntimeRecord
from core.contracts.specs import RunSpec
from core.fleet.preflight import check_hosts
from core.plugins.decode import read_spec
from core.settings.resources import examples_dir
from core.train.tasks.language import LanguageTrainingSpec
from tests.helpers.host_lab import HostLab, opened_host_lab
from tests.helpers.host_pool import Connections, Watching
from tests.helpers.ssh_server import opened_ssh_server
from tests.helpers.waiting import wait_for

OK, WARNING, ERROR = FindingLevel.OK, FindingLevel.WARNING, FindingLevel.ERROR

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def lab() -> Iterator[HostLab]:
    with opened_host_lab(3) as made:
        yield made


@pytest.fixture
def pool(lab: HostLab, tmp_path: Path) -> Iterator[Connections]:
    records = {
        name: lab.record_by_hand(
            name, connect_timeout_s=3.0, work_dir=str(lab.folder(name) / tmp_path.name / "its work")
        )
        for name in lab.names
    }
    one = Connections(records, lab.known_hosts, tmp_path)
    yield one
    one.close()


def checked(pool: Connections, names: str, spec: RunSpec | None = None) -> dict[str, CheckReport]:
    records = [pool.records[name] for name in names.split()]
    reports = check_hosts(pool, records, spec, Watching())
    assert [report.host for report in reports] == names.split()
    return {report.host: report for report in reports}


def of(report: CheckReport, topic: str) -> list[Finding]:
    return [found for found in report.findings if found.topic == topic]


def test_hosts_in_order_reach_each_other_and_nothing_is_left_on_them(lab: HostLab, pool: Connections) -> None:
    before = {name: set(lab.jobs(name).values()) for name in lab.names}
    reports = checked(pool, "h1 h2 h3")
    for name, report in reports.items():
        assert report.ok
        (between,) = of(report, "between")
        assert between.level is OK
        for other in set(lab.names) - {name}:
            assert f"{other} at {lab.address(other)}" in between.what
        assert of(report, "python")[0].level is WARNING
    pool.close()
    wait_for(lambda: {name: set(lab.jobs(name).values()) for name in lab.names} == before, "the check to be gone", 20)
    assert not [name for name in lab.names if Path(pool.records[name].work_dir).exists()]


def test_a_host_that_is_off_gives_one_finding_and_the_others_theirs(lab: HostLab, pool: Connections) -> None:
    lab.poweroff("h3")
    try:
        began = time.monotonic()
        reports = checked(pool, "h1 h2 h3")
        assert time.monotonic() - began < 30
    finally:
        lab.start("h3")
    (off,) = reports["h3"].findings
    assert (off.level, off.topic, bool(off.what), bool(off.remedy)) == (ERROR, "reachable", True, True)
    assert not reports["h3"].ok
    assert reports["h1"].ok
    assert of(reports["h1"], "between")[0].level is OK


def test_hosts_that_do_not_reach_each_other_are_told_although_we_reach_both(lab: HostLab, pool: Connections) -> None:
    lab.partition("h1", "h2")
    try:
        reports = checked(pool, "h1 h2 h3")
    finally:
        lab.heal("h1", "h2")
    for name, other in (("h1", "h2"), ("h2", "h1")):
        problems = [found for found in of(reports[name], "between") if found.level is ERROR]
        assert len(problems) == 1
        assert f"cannot connect to {other}" in problems[0].what
        assert "firewall" in problems[0].remedy
        assert not reports[name].ok
    assert reports["h3"].ok
    assert [found.level for found in of(reports["h3"], "between")] == [OK]


def test_what_a_run_needs_there(lab: HostLab, pool: Connections) -> None:
    data = lab.folder("h1") / "corpus"
    data.mkdir(exist_ok=True)
    lab.small_disk("h1", Path(pool.records["h1"].work_dir), "20m")
    spec = read_spec(examples_dir() / "stdlib-lm.toml")
    assert isinstance(spec, LanguageTrainingSpec)
    here = msgspec.structs.replace(spec, data=msgspec.structs.replace(spec.data, data=str(data)))
    nowhere = msgspec.structs.replace(spec, data=msgspec.structs.replace(spec.data, data="/no/such/corpus"))
    report = checked(pool, "h1", here)["h1"]
    assert of(report, "paths")[0].level is OK
    (disk,) = of(report, "disk")
    assert (disk.level, "checkpoints" in disk.what) == (ERROR, True)
    assert of(report, "python")[0].level is ERROR
    (missing,) = of(checked(pool, "h1", nowhere)["h1"], "paths")
    assert (missing.level, "/no/such/corpus" in missing.what, "copy_data" in missing.remedy) == (ERROR, True, True)


def test_hosts_with_one_folder_are_told(lab: HostLab, pool: Connections) -> None:
    """The namespaces share this machine's file system: the same path is the same folder."""
    shared = lab.base / "shared"
    shared.mkdir(exist_ok=True)
    for name in ("h1", "h2"):
        pool.records[name] = msgspec.structs.replace(pool.records[name], work_dir=str(shared))
    (shown,) = of(checked(pool, "h1 h2")["h2"], "shared")
    assert "the same as that of h1" in shown.what
    assert list(shared.iterdir()) == []


def test_versions_are_compared_and_an_environment_that_does_not_start_is_told(lab: HostLab, pool: Connections) -> None:
    python = Path(sys.prefix) / "bin" / "python"
    root = Path(__file__).parents[2]
    ours = RuntimeRecord(kind="interpreter", python=str(python), worker_dir=str(root))
    gone = RuntimeRecord(kind="interpreter", python="/opt/conda/envs/gone/bin/python", worker_dir=str(root))
    for name, runtime in (("h1", ours), ("h2", ours), ("h3", gone)):
        pool.records[name] = msgspec.structs.replace(pool.records[name], runtime=runtime)
    reports = checked(pool, "h1 h2 h3")
    assert [found.level for found in of(reports["h2"], "versions")] == [OK]
    assert of(reports["h1"], "torch")[0].level is OK
    (broken,) = of(reports["h3"], "python")
    assert (broken.level, "does not start" in broken.what) == (ERROR, True)


def test_cancel_does_not_wait_for_a_host_that_hangs(lab: HostLab, pool: Connections) -> None:
    lab.freeze("h2")
    watcher = Watching()
    try:
        timer = threading.Timer(0.5, lambda: setattr(watcher, "_is_cancelled", True))
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            check_hosts(pool, [pool.records[name] for name in ("h1", "h2")], None, watcher)
        assert time.monotonic() - began < 2.5
    finally:
        lab.thaw("h2")


def test_a_clock_that_is_wrong_is_told(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    real = subprocess.run(["sh", "-c", "command -v date"], capture_output=True, text=True, check=True).stdout.strip()
    (tools / "date").write_text(f"#!/bin/sh\nexec {real} -d '+95 seconds' \"$@\"\n")
    (tools / "date").chmod(0o755)
    with opened_ssh_server(tmp_path, more=f"SetEnv PATH={tools}:/usr/bin:/bin") as server:
        pool = Connections({"box": server.record("box", work_dir=str(tmp_path / "w"))}, server.known_hosts, tmp_path)
        (clock,) = of(checked(pool, "box")["box"], "clock")
        pool.close()
    assert clock.level is WARNING
    assert re.search(r"9[45]\.\d s ahead", clock.what)
    assert clock.remedy


def test_a_login_shell_that_talks_spoils_nothing(tmp_path: Path) -> None:
    with opened_ssh_server(tmp_path, more="SetEnv ENV=/dev/null") as server:
        noisy = tmp_path / "noisy"
        noisy.write_text(
            "#!/bin/sh\necho 'Welcome to node 7'; printf '\\033[31mQuota\\000 95 %%'\nshift; exec /bin/sh -c \"$@\"\n"
        )
        noisy.chmod(0o755)
        record: HostRecord = server.record("box", work_dir=str(tmp_path / "w"))
        server.stop()
        server._more = f'ForceCommand {noisy} -c "$SSH_ORIGINAL_COMMAND"'
        server.start()
        pool = Connections({"box": record}, server.known_hosts, tmp_path)
        report = checked(pool, "box")["box"]
        pool.close()
    assert report.ok
    assert of(report, "system")[0].level is OK
