"""The host's readings, limits and report: against real values of this machine, and against made-up system files."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from core.contracts.telemetry import CpuInfo, HardwareReport, MemoryInfo, Sample
from core.contracts.units import READINGS, reading_of, throttle_names
from core.hardware.counters import ProcCounters, PsutilCounters
from core.hardware.host import HostReader
from core.hardware.limits import control_group
from core.hardware.probe import _surely_holds_gpu, probe
from core.hardware.reading import Rates
from core.hardware.sampler import HostSampler
from core.hardware.vendors import open_readers
from core.hardware.vendors._sysfs import cards


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(1000))


def test_sample_is_plausible_and_every_key_is_in_the_catalogue(tmp_path: Path) -> None:
    sampler = HostSampler(tmp_path)
    burn(0.15)
    sample = sampler.sample((os.getpid(),))
    sampler.close()
    cores = [sample[f"cpu.{index}.percent"] for index in range(psutil.cpu_count() or 1)]
    known = [core for core in cores if core is not None]
    assert sample["cpu.percent"] == pytest.approx(sum(known) / len(known))
    assert all(0.0 <= core <= 100.0 for core in known)
    assert (sample["cpu.percent"] or 0.0) > 5.0
    assert sample["memory.total_bytes"] == psutil.virtual_memory().total
    assert sample["memory.used_bytes"] == pytest.approx(psutil.virtual_memory().used, rel=0.5)
    assert sample["disk.free_bytes"] == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.1)
    assert sample["run.processes"] is not None
    assert [key for key in sample if reading_of(key).group == "Other"] == []


def test_rates_come_from_differences_and_not_from_restarts() -> None:
    rates = Rates()
    assert rates.rate("x", 100.0, 1.0) is None
    assert rates.rate("x", 300.0, 3.0) == 100.0
    assert rates.rate("x", 5.0, 4.0) is None, "a counter that fell began anew"
    assert rates.rate("x", 6.0, 5.0) == 1.0
    assert rates.rate("x", 7.0, 5.001) is None, "too short to mean anything"
    assert rates.rate("x", 8.0, 6.0) == 2.0, "and the short call must not move the starting point"
    assert rates.rate("x", None, 7.0) is None
    assert rates.rate("x", 9.0, 8.0) is None


def test_two_readers_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = HostReader(tmp_path), HostReader(tmp_path)
    first.read(0.0)
    second.read(0.0)
    burn(0.1)
    second.read(1.0)
    assert (first.read(1.0)["cpu.percent"] or 0.0) > 5.0
    first.close()
    second.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kept files are Linux's")
def test_the_kept_files_and_psutil_tell_the_same() -> None:
    kept = ProcCounters()
    before, witness, after = kept.read(), PsutilCounters().read(), kept.read()
    kept.close()
    assert len(before.cores) == len(witness.cores)
    for low, (busy_s, total_s), high in zip(before.cores, witness.cores, after.cores, strict=True):
        assert low[0] - 0.02 <= busy_s <= high[0] + 0.02
        assert low[1] - 0.02 <= total_s <= high[1] + 0.02
    assert before.memory is not None
    assert witness.memory is not None
    assert before.memory[0] == witness.memory[0]
    assert before.memory[1] == pytest.approx(witness.memory[1], rel=0.2)
    assert before.swap_used_bytes == pytest.approx(witness.swap_used_bytes, abs=64 << 20)
    for low, real, high in ((before.network, witness.network, after.network), (before.disk, witness.disk, after.disk)):
        if low is not None and real is not None and high is not None:
            assert low[0] <= real[0] <= high[0]
            assert low[1] <= real[1] <= high[1]


DISKSTATS = """\
   7       0 loop0 9 9 99 9 9 9 99 9 0 0 0 0 0 0 0 0 0
   8       0 sda 10 0 1000 5 20 0 4000 5 0 0 0 0 0 0 0 0 0
   8       1 sda1 10 0 1000 5 20 0 4000 5 0 0 0 0 0 0 0 0 0
 253       0 dm-0 10 0 1000 5 20 0 4000 5 0 0 0 0 0 0 0 0 0
 259       0 nvme0n1 1 0 500 5 2 0 600 5 0 0 0 0 0 0 0 0 0
"""
NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 7777 1 0 0 0 0 0 0 7777 1 0 0 0 0 0 0
  eth0:1000 1 0 0 0 0 0 0 300 1 0 0 0 0 0 0
veth12: 5555 1 0 0 0 0 0 0 5555 1 0 0 0 0 0 0
   ib0: 50 1 0 0 0 0 0 0 40 1 0 0 0 0 0 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kept files are Linux's")
def test_only_whole_disks_and_real_cards_count(tmp_path: Path) -> None:
    write(tmp_path / "proc/diskstats", DISKSTATS)
    write(tmp_path / "proc/net/dev", NET_DEV)
    write(tmp_path / "proc/stat", "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 0 50 800 50 0 0 0 30 0\nintr 1 2 3\n")
    write(tmp_path / "proc/pressure/io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=120\nfull avg10=0 total=80\n")
    for name in ("loop0", "sda", "dm-0", "nvme0n1"):
        (tmp_path / "block" / name).mkdir(parents=True)
    source = ProcCounters(tmp_path / "proc", tmp_path / "block")
    counters = source.read()
    source.close()
    assert counters.disk == (1500 * 512.0, 4600 * 512.0)
    assert counters.network == (1050.0, 340.0)
    assert counters.pressure_us == {"io.some": 120.0, "io.full": 80.0}
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    assert counters.cores == [(pytest.approx(150 * tick_s), pytest.approx(1000 * tick_s))]
    assert (counters.memory, counters.swap_used_bytes) == (None, None)


def test_a_system_that_tells_nothing_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    calls = "cpu_times virtual_memory swap_memory disk_io_counters net_io_counters disk_usage cpu_freq getloadavg"
    for name in [*calls.split(), "sensors_temperatures"]:
        monkeypatch.setattr(psutil, name, refuse, raising=False)
    for source in (PsutilCounters(), ProcCounters(tmp_path / "none")):
        reader = HostReader(tmp_path, source)
        sample: Sample = reader.read(0.0) | reader.read(1.0)
        reader.close()
        limits = {"limit.memory_used_bytes", "limit.memory_total_bytes"}
        assert {value for key, value in sample.items() if key not in limits} == {None}


def test_processor_temperature_is_the_hottest_known_sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, current: float) -> None:
            self.current = current

    sensors = {"nvme": [Entry(90.0)], "k10temp": [Entry(55.5), Entry(61.0)]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert HostReader(tmp_path, PsutilCounters()).read(0.0)["cpu.temperature_c"] == 61.0


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_of_version_2_are_the_tightest_of_all_levels(tmp_path: Path) -> None:
    write(tmp_path / "proc/cgroup", "0::/pod/box\n")
    write(tmp_path / "fs/pod/box/memory.max", "max\n")
    write(tmp_path / "fs/pod/memory.max", "4294967296\n")
    write(tmp_path / "fs/pod/memory.current", "1000\n")
    write(tmp_path / "fs/pod/box/cpu.max", "150000 100000\n")
    write(tmp_path / "fs/pod/cpu.max", "max 100000\n")
    found = control_group(tmp_path / "proc", tmp_path / "fs")
    assert (found.memory_limit_bytes, found.quota_cores) == (4294967296, 1.5)
    assert found.memory_usage_file == tmp_path / "fs/pod/memory.current"


def test_limits_of_version_1_and_of_a_container_that_sees_only_its_own_root(tmp_path: Path) -> None:
    write(tmp_path / "proc/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    write(tmp_path / "fs/memory/memory.limit_in_bytes", "2147483648\n")
    write(tmp_path / "fs/cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "fs/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    found = control_group(tmp_path / "proc", tmp_path / "fs")
    assert (found.memory_limit_bytes, found.quota_cores) == (2147483648, 0.5)


def test_no_limit_is_none(tmp_path: Path) -> None:
    write(tmp_path / "proc/cgroup", "4:memory:/\n3:cpu:/\n")
    write(tmp_path / "fs/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "fs/cpu/cpu.cfs_period_us", "100000\n")
    assert control_group(tmp_path / "proc", tmp_path / "fs") == control_group(tmp_path / "none", tmp_path / "none")


def test_usable_is_the_tighter_of_machine_and_limit() -> None:
    cpu = CpuInfo(model="x", architecture="x86_64", logical_cores=64, affinity_cores=8, quota_cores=1.5)
    assert cpu.usable_cores == 1.5
    assert msgspec.structs.replace(cpu, quota_cores=None).usable_cores == 8.0
    memory = MemoryInfo(total_bytes=100, available_bytes=50, swap_total_bytes=0, limit_bytes=30)
    assert memory.usable_bytes == 30
    assert msgspec.structs.replace(memory, limit_bytes=None).usable_bytes == 100


def test_report_tells_this_machine_and_survives_json() -> None:
    report = probe()
    assert report.host == platform.node()
    assert report.cpu.logical_cores == psutil.cpu_count()
    assert report.cpu.model
    assert report.memory.total_bytes == psutil.virtual_memory().total
    assert any(disk.mount == Path.cwd().anchor and disk.total_bytes > 0 for disk in report.disks)
    assert msgspec.json.decode(msgspec.json.encode(report), type=HardwareReport) == report


@pytest.mark.skipif(sys.platform != "linux", reason="open files are listed in /proc")
def test_a_holder_is_named_only_if_it_has_a_gpus_device_open(tmp_path: Path) -> None:
    for pid, target in (("7", "/dev/nvidia0"), ("8", "/dev/null"), ("9", "/dev/kfd")):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "fd" / "3").symlink_to(target)
    assert [_surely_holds_gpu(pid, tmp_path) for pid in (7, 8, 9, 10)] == [True, False, True, False]


@pytest.mark.skipif(sys.platform != "linux", reason="flags are listed in /proc/cpuinfo")
def test_vector_extensions_are_those_of_the_kernel() -> None:
    flags = Path("/proc/cpuinfo").read_text()
    features = probe().cpu.features
    assert ("avx2" in features) == (" avx2" in flags)
    assert ("avx512_vnni" in features) == (" avx512_vnni" in flags)
    assert ("dotprod" in features) == (" asimddp" in flags)


def test_probing_and_sampling_load_no_compute_library() -> None:
    script = (
        "import sys; from core.hardware.probe import probe; from core.hardware.sampler import HostSampler;"
        "probe(); HostSampler().sample(); heavy = {'torch', 'numpy', 'onnxruntime', 'openvino', 'PySide6'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    repository = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_vendors_file_that_does_not_load_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "core.hardware.vendors.nvidia", None)
    readers = open_readers()
    problems = [problem for reader in readers for problem in reader.problems]
    broken = [problem for problem in problems if problem.part == "core.hardware.vendors.nvidia"]
    assert len(broken) == 1
    assert "cannot be loaded" in broken[0].message
    assert all(reader.read(frozenset(), 0.0) == reader.describe(0) == reader.processes(0) == () for reader in readers)
    assert HostSampler(readers=readers).sample()["memory.total_bytes"]


def test_cards_on_the_bus_are_found_by_vendor_and_class(tmp_path: Path) -> None:
    for slot, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x1002", "0x030000")):
        write(tmp_path / slot / "vendor", f"{vendor}\n")
        write(tmp_path / slot / "class", f"{kind}\n")
    write(tmp_path / "d" / "vendor", "0x10de\n")
    assert cards("0x10de", tmp_path) == [tmp_path / "a"]
    assert cards("0x1002", tmp_path) == [tmp_path / "c"]
    assert cards("0x10de", tmp_path / "none") == []


def test_catalogue_has_each_key_once_and_names_things_by_number() -> None:
    keys = [reading.key for reading in READINGS]
    assert len(keys) == len(set(keys))
    power = reading_of("gpu.11.power_w")
    assert (power.title, power.unit, power.group, power.key) == ("GPU 11 power", "W", "GPU power", "gpu.11.power_w")
    assert reading_of("user.thing").title == "user.thing"
    assert throttle_names(0x4 | 0x40) == ("power cap", "hardware thermal slowdown")
    assert throttle_names(None) == ()
