"""AMD's reader on made-up system files in the layout of the amdgpu and kfd drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.units import reading_of
from core.hardware.sampler import HostSampler
from core.hardware.vendors.amd import AmdReader

CARD = {
    "vendor": "0x1002",
    "device": "0x74a1",
    "class": "0x120000",
    "product_name": "AMD Instinct MI300X",
    "unique_id": "5f4c2b1a00000001",
    "power/runtime_status": "active",
    "gpu_busy_percent": "93",
    "mem_busy_percent": "57",
    "mem_info_vram_total": "206141652992",
    "mem_info_vram_used": "103070826496",
    "current_link_speed": "32.0 GT/s PCIe",
    "current_link_width": "16",
    "max_link_speed": "32.0 GT/s PCIe",
    "max_link_width": "16",
    "ras/umc_err_count": "ue: 1\nce: 12",
    "hwmon/hwmon4/power1_average": "612000000",
    "hwmon/hwmon4/power1_cap": "750000000",
    "hwmon/hwmon4/temp1_label": "edge",
    "hwmon/hwmon4/temp1_input": "48000",
    "hwmon/hwmon4/temp3_label": "mem",
    "hwmon/hwmon4/temp3_input": "61000",
    "hwmon/hwmon4/freq1_input": "2100000000",
    "hwmon/hwmon4/freq2_input": "1300000000",
    "hwmon/hwmon4/pwm1": "51",
    "hwmon/hwmon4/pwm1_max": "255",
}
PLACE = "0000:c1:00.0"
NODE = "domain 0\nlocation_id 49408\ngfx_target_version 90402\n"


def write_all(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def system(tmp_path: Path) -> Path:
    sys = tmp_path / "sys"
    write_all(sys / "bus/pci/devices" / PLACE, CARD)
    kfd = sys / "class/kfd/kfd"
    write_all(kfd / "topology/nodes", {"0/properties": "cpu_cores_count 64\nlocation_id 0", "0/gpu_id": "0"})
    write_all(kfd / "topology/nodes", {"1/properties": NODE, "1/gpu_id": "28851"})
    write_all(kfd / "proc", {"100/vram_28851": "1000", "200/vram_28851": "500", "200/vram_9": "7"})
    write_all(tmp_path / "rocm", {".info/version": "6.3.0"})
    write_all(sys, {"module/amdgpu/version": "6.10.5"})
    return sys


def test_a_gpu_is_read_and_described(system: Path, tmp_path: Path) -> None:
    reader = AmdReader(system, tmp_path / "rocm")
    (sample,) = reader.read(frozenset({100}), 0.0)
    assert sample == {
        "utilization_percent": 93.0,
        "memory_utilization_percent": 57.0,
        "memory_used_bytes": 103070826496.0,
        "memory_total_bytes": 206141652992.0,
        "power_w": pytest.approx(612.0),
        "power_limit_w": pytest.approx(750.0),
        "temperature_c": 48.0,
        "memory_temperature_c": 61.0,
        "fan_percent": pytest.approx(20.0),
        "sm_clock_hz": 2.1e9,
        "memory_clock_hz": 1.3e9,
        "ecc_corrected_volatile": 12.0,
        "ecc_uncorrected_volatile": 1.0,
        "processes": 2.0,
        "run_memory_used_bytes": 1000.0,
    }
    (info,) = reader.describe(3)
    assert (info.index, info.vendor_index, info.name) == (3, 0, "AMD Instinct MI300X")
    assert (info.compute_capability, info.runtime, info.driver) == ("gfx942", "ROCm 6.3.0", "6.10.5")
    assert (info.pcie_generation, info.pcie_width, info.pci_bus_id) == (5, 16, PLACE)
    assert [(p.gpu_index, p.pid, p.memory_bytes) for p in reader.processes(3)] == [(3, 100, 1000), (3, 200, 500)]
    assert reader.problems == ()


def test_a_sleeping_gpu_is_not_woken(system: Path) -> None:
    card = system / "bus/pci/devices" / PLACE
    (card / "power/runtime_status").write_text("suspended\n")
    (sample,) = AmdReader(system).read(frozenset({100}), 0.0)
    assert set(sample.values()) == {None}
    assert AmdReader(system).describe(0)[0].name == "AMD Instinct MI300X"


def test_files_that_are_missing_or_refuse_are_none(system: Path) -> None:
    card = system / "bus/pci/devices" / PLACE
    (card / "gpu_busy_percent").unlink()
    (card / "gpu_busy_percent").mkdir()
    (card / "hwmon/hwmon4/power1_average").unlink()
    (card / "mem_info_vram_used").write_text("N/A\n")
    (card / "hwmon/hwmon4/power1_input").write_text("99000000\n")
    (sample,) = AmdReader(system).read(frozenset(), 0.0)
    assert sample["utilization_percent"] is None
    assert sample["memory_used_bytes"] is None
    assert sample["power_w"] == pytest.approx(99.0)


def test_a_card_without_its_driver_is_said(system: Path) -> None:
    bare = {"vendor": "0x1002", "class": "0x030000", "device": "0x1"}
    write_all(system / "bus/pci/devices/0000:05:00.0", bare)
    reader = AmdReader(system)
    (problem,) = reader.problems
    assert "An AMD card is built in" in problem.message
    assert "modprobe amdgpu" in problem.hint
    assert len(reader.describe(0)) == 1


def test_without_the_compute_driver_there_are_no_processes(system: Path) -> None:
    (system / "class/kfd/kfd/topology/nodes/1/properties").unlink()
    reader = AmdReader(system)
    (sample,) = reader.read(frozenset({100}), 0.0)
    assert (sample["processes"], sample["run_memory_used_bytes"]) == (None, None)
    assert reader.describe(0)[0].compute_capability == ""
    assert reader.processes(0) == ()


def test_its_keys_are_in_the_catalogue_and_numbered_after_other_vendors(system: Path) -> None:
    sampler = HostSampler(readers=(AmdReader(system), AmdReader(system)))
    sample = sampler.sample((100,))
    sampler.close()
    assert sample["gpu.0.utilization_percent"] == sample["gpu.1.utilization_percent"] == 93.0
    assert [key for key in sample if reading_of(key).group == "Other"] == []
    assert {process.gpu_index for process in sampler.gpu_processes()} == {0, 1}
