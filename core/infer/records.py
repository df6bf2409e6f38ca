"""The result of a benchmark as ``benchmark.json``: typed, complete, and with all that is needed to judge it."""

from __future__ import annotations

import msgspec

from core.infer.backend import Precision

BENCHMARK_VERSION = 1


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one backend. Times are per call at batch 1 unless they say otherwise.

    Attributes:
        name: Such as ``openvino int8``.
        precision: Arithmetic asked for; ``executed`` is the one of most layers, read back from the backend.
        int8_layers: Layers computed in INT8, of ``layers`` convolutions and matrix products.
        size_bytes: Size of the model's files.
        import_s: To import the library; ``load_s`` to load the model; ``first_s`` for the first inference.
        warmup_calls: Inferences before measuring began; ``is_settled`` tells whether their time had stopped moving.
        queries: Timed inferences, n of every percentile.
        p50_low_ms: With ``p50_high_ms``, the 95 % interval of the median.
        p99_bound_ms: What the true p99 does not exceed with 95 % confidence; None when n is too small to quote p99.
        cpu_ms: CPU time per inference, all threads: median over bursts.
        throughput: Samples per second at ``throughput_batch`` samples per call.
        correct: Right answers on all ``samples`` of the test set; ``accuracy_low`` and ``accuracy_high`` are Wilson's
            95 % interval.
        peak_rss_bytes: Largest resident memory of the measuring process, library and test data included.
        wall_per_cpu: Wall time over CPU time of all bursts; far above 1 / threads, others had the CPU.
    """

    name: str
    backend: str
    backend_version: str
    precision: Precision
    executed: Precision
    int8_layers: int
    layers: int
    model: str
    size_bytes: int
    import_s: float
    load_s: float
    first_s: float
    warmup_calls: int
    is_settled: bool
    queries: int
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p99_ms: float
    p99_bound_ms: float | None
    mean_ms: float
    min_ms: float
    max_ms: float
    cpu_ms: float
    throughput: float
    throughput_batch: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    correct: int
    samples: int
    peak_rss_bytes: int | None
    wall_per_cpu: float


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """The A/A control: a second process with the same model as ``name``. Both ratios would be 1 on a still machine."""

    name: str
    p50_ratio: float
    cpu_ratio: float


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A variant that could not be measured, and why."""

    name: str
    reason: str


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole benchmark.

    Attributes:
        is_contended: Others had the CPU while it ran, or the control disagrees with itself: do not quote its times.
        verdict: The same as a sentence.
        rounds: Interleaved rounds; each variant had one burst in each.
        ended: Unix seconds.
    """

    version: int = BENCHMARK_VERSION
    variants: list[VariantResult]
    skipped: list[Skipped]
    control: Control | None
    is_contended: bool
    verdict: str
    threads: int
    seed: int
    rounds: int
    test_samples: int
    packages: dict[str, str]
    machine: str
    ended: float
