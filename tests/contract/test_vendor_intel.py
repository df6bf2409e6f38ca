"""Intel's reader on made-up system files in the layouts of the i915 and xe drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.hardware.vendors.intel import IntelReader

COMMON = {
    "vendor": "0x8086",
    "device": "0x56a0",
    "class": "0x030000",
    "power/runtime_status": "active",
    "max_link_speed": "16.0 GT/s PCIe",
    "max_link_width": "16",
    "hwmon/hwmon3/energy1_input": "5000000",
    "hwmon/hwmon3/power1_max": "190000000",
}
I915 = COMMON | {
    "drm/card1/gt/gt0/rc6_residency_ms": "1000",
    "drm/card1/gt/gt1/rc6_residency_ms": "2000",
    "drm/card1/gt/gt0/rps_act_freq_mhz": "2400",
    "drm/card1/gt/gt1/rps_act_freq_mhz": "0",
    "drm/card1/lmem_total_bytes": "17179869184",
}
XE = COMMON | {
    "drm/card0/dev": "226:0",
    "tile0/gt0/gtidle/idle_residency_ms": "500",
    "tile0/gt0/freq0/act_freq": "1900",
    "tile0/physical_vram_size_bytes": "12884901888",
    "hwmon/hwmon3/temp2_label": "pkg",
    "hwmon/hwmon3/temp2_input": "55000",
    "hwmon/hwmon3/temp3_label": "vram",
    "hwmon/hwmon3/temp3_input": "62000",
}


def write_all(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


def test_i915_awake_share_is_that_of_the_busiest_part(tmp_path: Path) -> None:
    card = write_all(tmp_path / "bus/pci/devices/0000:03:00.0", I915)
    reader = IntelReader(tmp_path)
    (first,) = reader.read(frozenset(), 10.0)
    assert (first["utilization_percent"], first["power_w"]) == (None, None)
    grown = {"gt0/rc6_residency_ms": "1500", "gt1/rc6_residency_ms": "4000"}
    write_all(card / "drm/card1/gt", grown)
    write_all(card, {"hwmon/hwmon3/energy1_input": "305000000"})
    (second,) = reader.read(frozenset(), 12.0)
    assert second["utilization_percent"] == pytest.approx(75.0)
    assert second["power_w"] == pytest.approx(150.0)
    assert second["energy_j"] == pytest.approx(305.0)
    assert second["sm_clock_hz"] == 2.4e9
    assert second["temperature_c"] is None
    (info,) = reader.describe(2)
    assert (info.index, info.name, info.memory_total_bytes) == (2, "Intel GPU 0x56a0", 17179869184)
    assert (info.max_pcie_generation, info.max_pcie_width, info.power_limit_w) == (4, 16, pytest.approx(190.0))


def test_xe_layout_is_read(tmp_path: Path) -> None:
    card = write_all(tmp_path / "bus/pci/devices/0000:03:00.0", XE)
    reader = IntelReader(tmp_path)
    reader.read(frozenset(), 10.0)
    write_all(card, {"tile0/gt0/gtidle/idle_residency_ms": "1500"})
    (sample,) = reader.read(frozenset(), 12.0)
    assert sample["utilization_percent"] == pytest.approx(50.0)
    assert (sample["temperature_c"], sample["memory_temperature_c"]) == (55.0, 62.0)
    assert (sample["sm_clock_hz"], sample["memory_total_bytes"]) == (1.9e9, 12884901888.0)


def test_a_shared_memory_gpu_without_limit_and_a_sleeping_one(tmp_path: Path) -> None:
    card = write_all(tmp_path / "bus/pci/devices/0000:00:02.0", COMMON | {"drm/card0/dev": "226:0"})
    write_all(card, {"hwmon/hwmon3/power1_max": "0"})
    reader = IntelReader(tmp_path)
    (info,) = reader.describe(0)
    assert (info.memory_total_bytes, info.power_limit_w) == (None, None)
    write_all(card, {"power/runtime_status": "suspended"})
    (sample,) = reader.read(frozenset(), 1.0)
    assert set(sample.values()) == {None}


def test_without_a_driver_it_is_said_without_alarm(tmp_path: Path) -> None:
    write_all(tmp_path / "bus/pci/devices/0000:00:02.0", COMMON)
    reader = IntelReader(tmp_path)
    (problem,) = reader.problems
    assert problem.severity == "info"
    assert reader.describe(0) == reader.read(frozenset(), 0.0) == ()
