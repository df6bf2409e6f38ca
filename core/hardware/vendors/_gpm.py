"""GPM, the performance counters of Hopper and later: how busy each kind of unit of a GPU is, between two snapshots.

Plain utilization says only that some kernel ran; these say whether it used the multiprocessors, the tensor cores or the
memory bandwidth. GPUs without GPM, or users without permission, get no sampler.
"""

from __future__ import annotations

from typing import Any

from core.contracts.telemetry import Sample
from core.hardware.vendors._nvml import GpuLostError, Nvml

_MIB = float(1 << 20)

_METRICS: tuple[tuple[int, str, float], ...] = (
    (2, "sm_percent", 1.0),
    (3, "sm_occupancy_percent", 1.0),
    (5, "tensor_percent", 1.0),
    (10, "dram_percent", 1.0),
    (11, "fp64_percent", 1.0),
    (12, "fp32_percent", 1.0),
    (13, "fp16_percent", 1.0),
    (20, "pcie_tx_bytes_per_s", _MIB),
    (21, "pcie_rx_bytes_per_s", _MIB),
    (60, "nvlink_rx_bytes_per_s", _MIB),
    (61, "nvlink_tx_bytes_per_s", _MIB),
)


class GpmSampler:
    """Two snapshots of one GPU that take turns."""

    def __init__(self, nvml: Nvml, part: str, handle: Any, snapshots: tuple[Any, Any]) -> None:
        self._nvml = nvml
        self._part = part
        self._handle = handle
        self._older, self._newer = snapshots
        self._has_older = False
        self._request: Any = nvml.api.c_nvmlGpmMetricsGet_t()

    @classmethod
    def open(cls, nvml: Nvml, part: str, handle: Any) -> GpmSampler | None:
        """Return a sampler, or None where this GPU, its driver or this user has no GPM.

        Raises:
            GpuLostError: The GPU does not answer.
        """
        support = nvml.call(part, "nvmlGpmQueryDeviceSupport", handle, is_quiet=True)
        if support is None or not support.isSupportedDevice:
            return None
        snapshots = (nvml.call(part, "nvmlGpmSampleAlloc"), nvml.call(part, "nvmlGpmSampleAlloc"))
        return None if None in snapshots else cls(nvml, part, handle, snapshots)

    def read(self) -> Sample:
        """Return the means since the last call; None at first and where the GPU cannot tell.

        Raises:
            GpuLostError: The GPU does not answer.
        """
        sample: Sample = dict.fromkeys(key for _, key, _ in _METRICS)
        self._older, self._newer = self._newer, self._older
        had_older, self._has_older = self._has_older, False
        if self._nvml.call(self._part, "nvmlGpmSampleGet", self._handle, self._newer) is None:
            return sample
        self._has_older = True
        if not had_older:
            return sample
        answer = self._ask()
        if answer is not None:
            for entry, (_, key, unit) in zip(answer.metrics, _METRICS, strict=False):
                sample[key] = entry.value * unit if entry.nvmlReturn == 0 else None
        return sample

    def _ask(self) -> Any:
        request = self._request
        request.version = self._nvml.api.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(_METRICS)
        request.sample1, request.sample2 = self._older, self._newer
        for index, (metric, _, _) in enumerate(_METRICS):
            request.metrics[index].metricId = metric
        return self._nvml.call(self._part, "nvmlGpmMetricsGet", request)

    def close(self) -> None:
        """Free the snapshots."""
        for snapshot in (self._older, self._newer):
            try:
                self._nvml.call(self._part, "nvmlGpmSampleFree", snapshot)
            except GpuLostError:
                # The GPU is gone and its snapshots with it.
                return
