"""Turns what a benchmark measured into its result: per variant, for the control, and whether it may be quoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.infer.measuring.messages import Burst
from core.infer.protocol import Measured
from core.infer.records import Control, VariantResult
from core.infer.statistics import median_interval, percentile, upper_bound, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MS = 1e6
CONTROL_BAND = 0.10
CONTENDED_WALL_PER_CPU = 1.15


def _latencies_ms(bursts: list[Burst]) -> NDArray[np.float64]:
    """Return the wall times of all calls in ms, ascending."""
    import numpy as np

    return np.sort(np.concatenate([np.asarray(burst.wall_ns, dtype=np.float64) for burst in bursts])) / _MS


def _cpu_ms(bursts: list[Burst]) -> float:
    """Return the CPU time of one call in ms: the median over bursts of each burst's mean."""
    import numpy as np

    return float(np.median([burst.cpu_ns / len(burst.wall_ns) for burst in bursts])) / _MS


def _wall_per_cpu(bursts: list[Burst]) -> float:
    """Return wall time over CPU time of all bursts together."""
    return sum(burst.total_ns for burst in bursts) / max(sum(burst.cpu_ns for burst in bursts), 1)


def summarize(one: Measured, batch: int) -> VariantResult:
    """Return the result of one variant; see ``VariantResult`` for the meaning of each figure."""
    ms = _latencies_ms(one.single)
    median = median_interval(ms)
    interval = wilson_interval(one.scored.correct, one.scored.samples)
    batched_calls = sum(len(burst.wall_ns) for burst in one.batched)
    variant, loaded = one.named.variant, one.loaded
    return VariantResult(
        name=one.named.name,
        backend=variant.backend,
        backend_version=loaded.version,
        precision=variant.precision,
        executed=loaded.executed,
        int8_layers=loaded.int8_layers,
        layers=loaded.layers,
        model=variant.model.name,
        size_bytes=variant.size_bytes,
        import_s=loaded.import_s,
        load_s=loaded.load_s,
        first_s=loaded.first_s,
        warmup_calls=one.warmed.calls,
        is_settled=one.warmed.is_settled,
        queries=len(ms),
        p50_ms=percentile(ms, 0.50),
        p50_low_ms=median.low,
        p50_high_ms=median.high,
        p90_ms=percentile(ms, 0.90),
        p99_ms=percentile(ms, 0.99),
        p99_bound_ms=upper_bound(ms, 0.99),
        mean_ms=float(ms.mean()),
        min_ms=float(ms[0]),
        max_ms=float(ms[-1]),
        cpu_ms=_cpu_ms(one.single),
        throughput=batched_calls * batch / (sum(burst.total_ns for burst in one.batched) / 1e9),
        throughput_batch=batch,
        accuracy=one.scored.correct / one.scored.samples,
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        correct=one.scored.correct,
        samples=one.scored.samples,
        peak_rss_bytes=one.batched[-1].peak_rss_bytes,
        wall_per_cpu=_wall_per_cpu(one.single),
    )


def compare_control(measured: list[Measured], control: Measured | None) -> Control | None:
    """Return the control's ratios to the variant that it repeats."""
    if control is None:
        return None
    twin = next(one for one in measured if one.named.name == control.named.name)
    return Control(
        name=control.named.name,
        p50_ratio=percentile(_latencies_ms(control.single), 0.5) / percentile(_latencies_ms(twin.single), 0.5),
        cpu_ratio=_cpu_ms(control.single) / _cpu_ms(twin.single),
    )


def judge_quiet(variants: list[VariantResult], control: Control | None, threads: int) -> tuple[bool, str]:
    """Tell whether the machine was too busy for the times to be quoted, and say why or why not.

    With one thread, wall and CPU time are equal on a quiet machine; with more, CPU time exceeds wall time and only the
    control can tell.
    """
    if threads == 1:
        worst = max(variants, key=lambda variant: variant.wall_per_cpu)
        if worst.wall_per_cpu > CONTENDED_WALL_PER_CPU:
            return True, (
                f"Contended: {worst.name} took {worst.wall_per_cpu:.2f} times its CPU time, so other work had the CPU. "
                "Compare CPU times, or repeat on a quiet machine."
            )
    if control is not None and abs(control.p50_ratio - 1) > CONTROL_BAND:
        return True, (
            f"Unsteady: two processes of {control.name} differ by a factor of {control.p50_ratio:.2f}. "
            "Differences between variants of that size mean nothing; repeat on a quiet machine."
        )
    if control is None:
        return False, "No contention seen; there was no A/A control."
    return False, f"Quiet: two processes of {control.name} agree within a factor of {control.p50_ratio:.3f}."
