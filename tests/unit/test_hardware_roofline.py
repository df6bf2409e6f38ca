"""The native probe, its numpy twin, and what happens where the probe cannot be built or run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.cli.arguments import build_parser
from core.cli.hardware import describe_roofline
from core.contracts.telemetry import Roofline
from core.hardware.native import COMPILERS, SOURCE, NativeProbe
from core.hardware.roofline import fma_checksum, last_cache_bytes, measure_roofline, triad_checksum

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)) or sys.platform == "win32", reason="the native probe needs GCC or Clang"
)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> NativeProbe:
    return NativeProbe.find(tmp_path_factory.mktemp("native"))


@needs_compiler
def test_both_kernels_equal_their_twins_bit_for_bit(probe: NativeProbe) -> None:
    assert probe.program is not None, probe.reason
    for iterations in (1, 3, 17, 1000):
        line = probe.measure("fma", 2, iterations)
        assert line is not None
        assert line["checksum"] == fma_checksum(line["lanes"], line["vector_lanes"], iterations)
    for elements in (1, 1000, 123_457):
        line = probe.measure("triad", 2, elements)
        assert line is not None
        assert line["checksum"] == triad_checksum(elements)


def test_the_twins_tell_different_work_apart() -> None:
    assert fma_checksum(64, 8, 3) != fma_checksum(64, 8, 4)
    assert fma_checksum(64, 8, 3) != fma_checksum(64, 16, 3)
    assert triad_checksum(1000) != triad_checksum(1001)


@needs_compiler
def test_other_instruction_sets_compute_the_same(tmp_path: Path) -> None:
    compiler = next(filter(None, map(shutil.which, COMPILERS)))
    program = tmp_path / "plain"
    subprocess.run([compiler, "-std=c++17", "-O2", "-pthread", "-o", str(program), str(SOURCE)], check=True)
    line = NativeProbe(program).measure("fma", 1, 25)
    assert line is not None
    assert line["checksum"] == fma_checksum(line["lanes"], line["vector_lanes"], 25)


def is_plausible(roofline: Roofline) -> bool:
    return 1e8 < roofline.peak_fp32_flop_per_s < 1e15 and 1e8 < roofline.bandwidth_bytes_per_s < 1e13


@needs_compiler
def test_native_measurement_says_so(probe: NativeProbe) -> None:
    roofline = measure_roofline(threads=1, array_bytes=1 << 20, kernel_s=0.02, probe=probe)
    assert (roofline.engine, roofline.threads, roofline.array_bytes) == ("native", 1, 1 << 20)
    assert is_plausible(roofline)
    ridge = roofline.peak_fp32_flop_per_s / roofline.bandwidth_bytes_per_s
    assert roofline.ridge_flop_per_byte == ridge
    if roofline.cache_bytes is not None and roofline.cache_bytes > 1 << 18:
        assert "less than four times" in roofline.note


def test_without_a_probe_numpy_measures_and_says_why() -> None:
    missing = NativeProbe(None, "No C++ compiler was found.")
    roofline = measure_roofline(threads=2, array_bytes=1 << 20, kernel_s=0.02, probe=missing)
    assert roofline.engine == "numpy"
    assert roofline.note.startswith("No C++ compiler was found. Measured with numpy")
    assert is_plausible(roofline)


def test_a_probe_that_crashes_is_replaced_by_numpy(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\nkill -ILL $$\n")
    program.chmod(0o755)
    roofline = measure_roofline(threads=1, array_bytes=1 << 20, kernel_s=0.02, probe=NativeProbe(program))
    assert (roofline.engine, "did not run" in roofline.note) == ("numpy", True)


@needs_compiler
def test_a_source_that_does_not_compile_is_said(tmp_path: Path) -> None:
    source = tmp_path / "peak.cpp"
    source.write_text("int main() { return nothing; }\n")
    probe = NativeProbe.find(tmp_path / "cache", source)
    assert probe.program is None
    assert "could not be compiled" in probe.reason
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_source_and_missing_compiler_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not part of this installation" in NativeProbe.find(tmp_path, tmp_path / "none.cpp").reason
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No C++ compiler" in NativeProbe.find(tmp_path).reason


@needs_compiler
def test_a_built_probe_is_used_again(probe: NativeProbe) -> None:
    assert probe.program is not None
    built = probe.program.stat().st_mtime_ns
    again = NativeProbe.find(probe.program.parent)
    assert again.program == probe.program
    assert probe.program.stat().st_mtime_ns == built


def test_last_cache_is_the_largest(tmp_path: Path) -> None:
    for index, size in enumerate(("48K", "32K", "2048K", "260M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert last_cache_bytes(tmp_path) == 260 << 20
    assert last_cache_bytes(tmp_path / "none") is None


def test_the_command_line_offers_the_measurement_and_tells_it_in_units() -> None:
    assert build_parser().parse_args(["hardware", "--measure"]).measure
    assert not build_parser().parse_args(["hardware"]).measure
    roofline = Roofline(
        peak_fp32_flop_per_s=2e11,
        bandwidth_bytes_per_s=1e10,
        threads=2,
        array_bytes=1 << 29,
        cache_bytes=None,
        engine="numpy",
        note="No C++ compiler was found.",
    )
    text = describe_roofline(roofline)
    assert "200.0 GFLOP/s fp32 on 2 threads (numpy)" in text
    assert "10.0 GB/s (triad, three arrays of 0.5 GiB)" in text
    assert "20.0 FLOP/B" in text
    assert text.endswith("No C++ compiler was found.")
