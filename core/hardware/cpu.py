"""What the processors are: model, sockets, cores, memory nodes and the vector extensions that matter to inference."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import psutil

from core.contracts.telemetry import CpuInfo
from core.hardware.limits import affinity_cores, read_text
from core.hardware.reading import attempt

_CPU_FOLDER = Path("/sys/devices/system/cpu")
_NODE_FOLDER = Path("/sys/devices/system/node")

_FEATURES: dict[str, str] = {
    # Linux's flag: our name. x86 first, then Arm.
    "sse4_2": "sse4_2",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
_MAC_FEATURES: dict[str, str] = {
    "hw.optional.neon": "neon",
    "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
}


def cpu_info(quota_cores: float | None) -> CpuInfo:
    """Describe the processors. Never raises.

    Args:
        quota_cores: The control group's limit, from ``core.hardware.limits``.
    """
    logical = psutil.cpu_count() or 1
    frequency = attempt(psutil.cpu_freq)
    model, features = _linux_names() if sys.platform == "linux" else _other_names()
    return CpuInfo(
        model=model or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        sockets=_sockets(),
        physical_cores=attempt(lambda: psutil.cpu_count(logical=False)),
        logical_cores=logical,
        affinity_cores=affinity_cores(),
        quota_cores=quota_cores,
        numa_nodes=len(list(_NODE_FOLDER.glob("node[0-9]*"))) or None,
        max_frequency_hz=frequency.max * 1e6 if frequency and frequency.max else None,
        features=features,
    )


def _linux_names() -> tuple[str, tuple[str, ...]]:
    """Read the first processor's paragraph of /proc/cpuinfo; Arm has no model name there, boards name themselves."""
    paragraph = read_text(Path("/proc/cpuinfo")).partition("\n\n")[0]
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in paragraph.splitlines())
    }
    flags = set(f"{fields.get('flags', '')} {fields.get('features', '')}".split())
    board = read_text(Path("/proc/device-tree/model")).strip("\0\n ")
    model = fields.get("model name") or board
    return model, tuple(name for flag, name in _FEATURES.items() if flag in flags)


def _other_names() -> tuple[str, tuple[str, ...]]:
    """Ask macOS's ``sysctl`` for the names; Windows tells only the model, and its vector extensions stay unknown."""
    if sys.platform != "darwin":
        return platform.processor(), ()
    model = attempt(lambda: _sysctl("machdep.cpu.brand_string")) or ""
    return model, tuple(name for key, name in _MAC_FEATURES.items() if attempt(lambda key=key: _sysctl(key)) == "1")


def _sysctl(key: str) -> str:
    command = ["/usr/sbin/sysctl", "-n", key]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=2.0, check=False).stdout.strip()
    except subprocess.SubprocessError:
        return ""


def _sockets() -> int | None:
    packages = {read_text(file).strip() for file in _CPU_FOLDER.glob("cpu[0-9]*/topology/physical_package_id")}
    return len(packages - {"", "-1"}) or None
