"""NVIDIA's reader under the real nvidia-ml-py, on machines that our stand-in library plays: healthy, old, and broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.nvml import NvidiaMachine, build

READ_TWICE = """
from core.hardware.vendors.nvidia import NvidiaReader
reader = NvidiaReader()
reader.read(frozenset({100, 300}), 10.0)
change(*CHANGES)
samples = reader.read(frozenset({100, 300}), 12.0)
emit([samples, reader.describe(0), reader.processes(0), reader.problems])
reader.close()
"""

TWO_GPUS = """
    gpus 2
    gpu.0.name NVIDIA H100 80GB HBM3
    gpu.0.utilization 87
    gpu.0.memory_utilization 41
    gpu.0.memory_total 85899345920
    gpu.0.memory_used 42949672960
    gpu.0.memory_reserved 500000000
    gpu.0.power_mw 612500
    gpu.0.power_limit_mw 700000
    gpu.0.temperature 71
    gpu.0.clock.1 1755
    gpu.0.clock.2 2619
    gpu.0.max_clock.1 1980
    gpu.0.encoder 3
    gpu.0.decoder 5
    gpu.0.energy_mj 5000000
    gpu.0.reasons 36
    gpu.0.ecc 1
    gpu.0.ecc_errors.0.0 2
    gpu.0.ecc_errors.1.0 0
    gpu.0.ecc_errors.0.1 7
    gpu.0.ecc_errors.1.1 1
    gpu.0.mig 0
    gpu.0.field.82 83
    gpu.0.field.91 18
    gpu.0.field.138 1000
    gpu.0.field.139 5000
    gpu.0.field.197 1000000
    gpu.0.field.198 2000000
    gpu.0.process.0 100 1000 compute
    gpu.0.process.1 200 500 compute
    gpu.0.process.2 200 500 graphics
    gpu.0.process.3 300 24 graphics
    gpu.1.name NVIDIA H100 80GB HBM3
    gpu.1.utilization 0
    gpu.1.reasons 1
    gpu.1.mig 1
    gpu.1.fail.nvmlDeviceGetUtilizationRates 3
    gpu.1.process.0 100 -1 compute
"""


@pytest.fixture(scope="session")
def new_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml") / "new")


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml") / "old", "-DOLD_DRIVER")


@pytest.fixture
def machine(new_driver: Path, tmp_path: Path) -> NvidiaMachine:
    return NvidiaMachine(new_driver, tmp_path / "machine.txt")


def read_twice(*changes: str) -> str:
    return READ_TWICE.replace("CHANGES", repr(changes))


def test_a_healthy_machine_is_read_whole(machine: NvidiaMachine) -> None:
    grown = ("gpu.0.field.138 3000", "gpu.0.field.139 5000", "gpu.0.field.197 9000000", "gpu.0.field.198 1000")
    (first, second), infos, holders, problems = machine.run(TWO_GPUS, read_twice(*grown))
    assert problems == []
    assert first == {
        "utilization_percent": 87.0,
        "memory_utilization_percent": 41.0,
        "memory_used_bytes": 42949672960.0,
        "memory_total_bytes": 85899345920.0,
        "encoder_percent": 3.0,
        "decoder_percent": 5.0,
        "power_w": 612.5,
        "power_limit_w": 700.0,
        "energy_j": 5000.0,
        "temperature_c": 71.0,
        "memory_temperature_c": 83.0,
        "fan_percent": None,
        "sm_clock_hz": 1755e6,
        "memory_clock_hz": 2619e6,
        "throttle_reasons": 36.0,
        "throttled": 1.0,
        # 2000 KiB, 8 MB and nothing over 2 s; the counter that fell has wrapped and tells nothing.
        "nvlink_tx_bytes_per_s": 1024000.0,
        "nvlink_rx_bytes_per_s": 0.0,
        "pcie_tx_bytes_per_s": 4e6,
        "pcie_rx_bytes_per_s": None,
        "ecc_corrected_volatile": 2.0,
        "ecc_uncorrected_volatile": 0.0,
        "ecc_corrected_aggregate": 7.0,
        "ecc_uncorrected_aggregate": 1.0,
        "processes": 3.0,
        "run_memory_used_bytes": 1024.0,
    }
    assert second["utilization_percent"] is None
    assert second["throttled"] == 0.0
    assert second["run_memory_used_bytes"] is None
    assert infos[0]["runtime"] == "CUDA 12.8"
    assert (infos[0]["compute_capability"], infos[0]["nvlink_links"], infos[0]["ecc_enabled"]) == ("9.0", 18, True)
    assert [info["mig_enabled"] for info in infos] == [False, True]
    assert infos[0]["max_sm_clock_hz"] == 1980e6
    assert infos[1]["pci_bus_id"] == "00000000:18:00.0"
    uses = {(holder["gpu_index"], holder["pid"], holder["use"], holder["memory_bytes"]) for holder in holders}
    assert uses == {
        (0, 100, "compute", 1000),
        (0, 200, "compute", 500),
        (0, 200, "graphics", 500),
        (0, 300, "graphics", 24),
        (1, 100, "compute", None),
    }


def test_hopper_counters_come_from_gpm_and_fill_in_for_missing_ones(machine: NvidiaMachine) -> None:
    description = """
        gpus 1
        gpu.0.gpm 1
        gpu.0.gpm.2 91.5
        gpu.0.gpm.5 62.25
        gpu.0.gpm.10 40
        gpu.0.gpm.20 3
        gpu.0.field.198 0
    """
    (first,), _, _, problems = machine.run(description, read_twice("gpu.0.field.198 10", "gpu.0.gpm.21 100"))
    assert problems == []
    assert (first["sm_percent"], first["tensor_percent"], first["dram_percent"]) == (91.5, 62.25, 40.0)
    assert first["sm_occupancy_percent"] is None
    assert first["pcie_tx_bytes_per_s"] == 3 * 2**20
    assert first["pcie_rx_bytes_per_s"] == 5.0


def test_an_old_driver_falls_back_and_says_what_it_lacks(old_driver: Path, tmp_path: Path) -> None:
    old = NvidiaMachine(old_driver, tmp_path / "machine.txt")
    (first, _), _, holders, problems = old.run(TWO_GPUS + "driver 450.80", read_twice())
    assert first["memory_used_bytes"] == 42949672960.0 + 500000000
    assert first["throttle_reasons"] == 36.0
    assert first["run_memory_used_bytes"] == 1024.0
    assert first["energy_j"] is None
    assert first["pcie_tx_bytes_per_s"] is None
    assert len(holders) == 5
    (problem,) = problems
    assert problem["severity"] == "info"
    assert "450.80 is too old" in problem["message"]
    assert "nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetFieldValues" not in problem["message"]
    assert "nvmlDeviceGetMemoryInfo" not in problem["message"]
    assert "Update the driver" in problem["hint"]


def test_a_lost_gpu_does_not_stop_the_others_and_comes_back(machine: NvidiaMachine) -> None:
    script = """
from core.hardware.vendors.nvidia import NvidiaReader
reader = NvidiaReader(retry_s=0.0)
out = [reader.read(frozenset(), 1.0), reader.describe(0)]
change("gpu.0.lost 1")
out += [reader.read(frozenset(), 2.0), reader.describe(0), reader.problems]
change("gpu.0.lost 0")
out += [reader.read(frozenset(), 3.0), reader.describe(0), reader.problems]
emit(out)
"""
    before, _, lost, lost_infos, lost_problems, after, after_infos, after_problems = machine.run(TWO_GPUS, script)
    assert before[0]["power_w"] == after[0]["power_w"] == 612.5
    assert set(lost[0].values()) == {None}
    assert set(lost[0]) == set(before[0])
    assert lost[1]["power_w"] == 60.0
    assert lost_infos[0]["name"] == "NVIDIA H100 80GB HBM3"
    assert "fallen off the bus" in lost_infos[0]["problem"]
    assert lost_infos[1]["problem"] == after_infos[0]["problem"] == ""
    (problem,) = lost_problems
    assert (problem["part"], problem["severity"]) == ("nvidia gpu 0", "error")
    assert "reboot" in problem["hint"]
    assert after_problems == []


def test_a_lost_gpu_is_not_asked_again_before_its_time(machine: NvidiaMachine) -> None:
    script = """
from core.hardware.vendors.nvidia import NvidiaReader
reader = NvidiaReader(retry_s=3600.0)
change("gpu.0.lost 1")
reader.read(frozenset(), 1.0)
change("gpu.0.lost 0")
emit(reader.read(frozenset(), 2.0))
"""
    first, second = machine.run(TWO_GPUS, script)
    assert set(first.values()) == {None}
    assert second["power_w"] == 60.0


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        (18, "different versions", "Reboot"),
        (9, "not loaded", "modprobe"),
        (4, "does not let this user", "administrator"),
        (999, "Unknown Error (code 999)", "system log"),
    ],
)
def test_a_driver_that_cannot_be_opened_is_one_sentence_and_recovers(
    machine: NvidiaMachine, code: int, message: str, remedy: str
) -> None:
    script = """
from core.hardware.vendors.nvidia import NvidiaReader
reader = NvidiaReader(retry_s=0.0)
out = [reader.read(frozenset(), 1.0), reader.problems]
change("fail.nvmlInit 0")
out += [len(reader.read(frozenset(), 2.0)), reader.problems]
emit(out)
"""
    samples, problems, count_after, problems_after = machine.run(TWO_GPUS + f"fail.nvmlInit {code}", script)
    assert samples == []
    (problem,) = problems
    assert message in problem["message"]
    assert remedy in problem["hint"]
    assert (count_after, problems_after) == (2, [])


def test_a_driver_that_goes_away_under_our_feet_keeps_its_gpus_on_the_screen(machine: NvidiaMachine) -> None:
    script = """
from core.hardware.vendors.nvidia import NvidiaReader
reader = NvidiaReader(retry_s=0.0)
reader.describe(0)
change("fail.nvmlDeviceGetPowerUsage 9", "fail.nvmlInit 18")
reader.read(frozenset(), 1.0)
out = [reader.read(frozenset(), 2.0), reader.describe(0), reader.problems]
change("fail.nvmlDeviceGetPowerUsage 0", "fail.nvmlInit 0")
out += [reader.read(frozenset(), 3.0), reader.problems]
emit(out)
"""
    gone, infos, problems, back, back_problems = machine.run(TWO_GPUS, script)
    assert [set(sample.values()) for sample in gone] == [{None}, {None}]
    assert infos[0]["name"] == "NVIDIA H100 80GB HBM3"
    assert "different versions" in infos[0]["problem"]
    assert "different versions" in problems[0]["message"]
    assert back[0]["power_w"] == 612.5
    assert back_problems == []


def test_faults_of_single_calls_cost_only_their_own_reading(machine: NvidiaMachine) -> None:
    faults = (
        "gpu.0.fail.nvmlDeviceGetPowerUsage 4",
        "gpu.0.fail.nvmlDeviceGetTemperature 3",
        "gpu.0.fail.nvmlDeviceGetComputeRunningProcesses_v3 7",
        "gpu.0.fail.nvmlDeviceGetComputeRunningProcesses_v2 7",
        "gpu.0.fail.nvmlDeviceGetClockInfo 999",
    )
    (first, second), _, _, problems = machine.run(TWO_GPUS + "\n".join(faults), read_twice())
    nothing = {key for key, value in first.items() if value is None}
    failed = {"power_w", "temperature_c", "sm_clock_hz", "memory_clock_hz", "processes", "run_memory_used_bytes"}
    assert nothing == failed | {"fan_percent"}
    assert first["nvlink_tx_bytes_per_s"] == 0.0
    assert second["power_w"] == 60.0
    found = {(problem["part"], problem["severity"]) for problem in problems}
    assert found == {("nvidia gpu 0", "warning"), ("nvidia gpu 0", "info")}
    assert len(problems) == 3
    assert all("(nvidia gpu 0)." in problem["message"] for problem in problems)


def test_no_driver_at_all_is_said_without_alarm(tmp_path: Path) -> None:
    script = """
from core.hardware.vendors import _nvml
from core.hardware.vendors.nvidia import NvidiaReader
reader = NvidiaReader()
out = [reader.read(frozenset(), 1.0), reader.describe(0), reader.processes(0), reader.problems]
_nvml.cards = lambda vendor: [1, 2]
reader = NvidiaReader()
emit([*out, reader.problems])
"""
    if list(Path("/usr").glob("lib*/**/libnvidia-ml.so.1")):
        pytest.skip("this machine has an NVIDIA driver")
    samples, infos, holders, problems, with_cards = NvidiaMachine(None, tmp_path / "machine.txt").run("", script)
    assert (samples, infos, holders) == ([], [], [])
    assert problems[0]["severity"] == "info"
    assert with_cards[0]["severity"] == "error"
    assert "2 NVIDIA cards are built in" in with_cards[0]["message"]


def test_a_host_sample_and_report_number_the_gpus(machine: NvidiaMachine) -> None:
    script = """
from core.contracts.units import reading_of
from core.hardware.probe import probe
from core.hardware.sampler import HostSampler
sampler = HostSampler()
sample = sampler.sample((os.getpid(),))
unknown = [key for key in sample if reading_of(key).group == "Other"]
report = probe()
emit([sample, unknown, report, sampler.gpu_processes(), "torch" in sys.modules])
sampler.close()
"""
    description = TWO_GPUS + "gpu.1.gpm 1\ngpu.1.fan 30"
    sample, unknown, report, holders, has_torch = machine.run(description, script)
    assert unknown == []
    assert (sample["gpu.0.power_w"], sample["gpu.1.power_w"], sample["gpu.1.fan_percent"]) == (612.5, 60.0, 30.0)
    assert sample["run.processes"] == 1.0
    assert [gpu["name"] for gpu in report["gpus"]] == ["NVIDIA H100 80GB HBM3"] * 2
    assert len(report["gpu_processes"]) == len(holders) == 5
    assert not has_torch
