"""The protocol of a benchmark: who runs when.

All variants are loaded, scored and warmed up one after the other; then each round gives every variant one burst at
batch 1 and one at the throughput batch, in an order that turns round after every round, so that a drift of the machine
(heat, clocks, other work) falls on all alike instead of on whoever came last.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from core.contracts.errors import Cancelled, PilothouseError
from core.contracts.worker import RunContext
from core.infer.measuring.handle import MeasuringProcess
from core.infer.measuring.messages import (
    Burst,
    BurstRequest,
    Loaded,
    LoadRequest,
    Scored,
    ScoreRequest,
    Warmed,
    WarmRequest,
)
from core.infer.records import Skipped
from core.infer.spec import BenchmarkSpec
from core.infer.variants import NamedVariant

_SCORE_BATCH = 64
_MIN_THROUGHPUT_CALLS = 3
_SETUP_SHARE = 0.4


@dataclass(slots=True)
class Measured:
    """All that was measured of one variant."""

    named: NamedVariant
    process: MeasuringProcess
    loaded: Loaded
    scored: Scored
    warmed: Warmed
    single: list[Burst] = field(default_factory=list[Burst])
    batched: list[Burst] = field(default_factory=list[Burst])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The variants measured, the control (a second process of the first variant), and those that could not be run."""

    measured: list[Measured]
    control: Measured | None
    skipped: list[Skipped]


class Protocol:
    """Runs one benchmark. Thread: the worker's main thread.

    Args:
        spec: The protocol's parameters.
        test_data: Test samples.
        sample: Index of the sample that latencies are timed on.
        context: The run, for progress, log and stop.
    """

    def __init__(self, spec: BenchmarkSpec, test_data: Path, sample: int, context: RunContext) -> None:
        self._spec = spec
        self._test_data = test_data
        self._sample = sample
        self._context = context

    def run(self, variants: tuple[NamedVariant, ...]) -> Outcome:
        """Measure all variants.

        Raises:
            Cancelled: The run was asked to stop.
            UserError: A measuring process died in mid-measurement.
        """
        with contextlib.ExitStack() as processes:
            outcome = self._set_up(variants, processes.enter_context)
            everyone = [*outcome.measured, *([outcome.control] if outcome.control else [])]
            for index in range(self._spec.rounds if outcome.measured else 0):
                self._round(everyone if index % 2 == 0 else everyone[::-1], index)
        return outcome

    def _set_up(
        self, variants: tuple[NamedVariant, ...], keep: Callable[[MeasuringProcess], MeasuringProcess]
    ) -> Outcome:
        measured: list[Measured] = []
        skipped: list[Skipped] = []
        total = len(variants) + 1
        for index, named in enumerate(variants):
            self._context.progress(_SETUP_SHARE * index / total, f"Loading and scoring {named.name}")
            try:
                measured.append(self._prepare(named, keep))
            except Cancelled:
                raise
            except PilothouseError as error:
                skipped.append(Skipped(name=named.name, reason=str(error)))
                self._context.log(f"{named.name} is left out: {error}", "warning")
        control: Measured | None = None
        if measured and self._spec.control:
            # The first fp32 variant of a compiled runtime, where there is one: eager PyTorch is noisier in itself.
            chosen = next((m for m in measured if m.named.variant.backend != "pytorch"), measured[0])
            self._context.progress(_SETUP_SHARE * (total - 1) / total, f"Loading the control of {chosen.named.name}")
            control = self._prepare(chosen.named, keep)
        return Outcome(measured, control, skipped)

    def _prepare(self, named: NamedVariant, keep: Callable[[MeasuringProcess], MeasuringProcess]) -> Measured:
        variant = named.variant
        process = keep(MeasuringProcess(named.name, self._spec.threads, self._context))
        request = LoadRequest(
            backend=variant.backend,
            precision=variant.precision,
            model=str(variant.model),
            threads=self._spec.threads,
            test_data=str(self._test_data),
            sample=self._sample,
        )
        loaded = process.ask(request, Loaded)
        if variant.precision != loaded.executed:
            self._context.log(
                f"{named.name}: most layers run in {loaded.executed} ({loaded.int8_layers} of {loaded.layers} in INT8).",
                "warning",
            )
        scored = process.ask(ScoreRequest(batch=_SCORE_BATCH), Scored)
        warmed = process.ask(WarmRequest(limit_s=self._spec.warmup_limit_s), Warmed)
        return Measured(named, process, loaded, scored, warmed)

    def _round(self, everyone: list[Measured], index: int) -> None:
        spec = self._spec
        calls = math.ceil(spec.queries / spec.rounds)
        batched_calls = max(math.ceil(calls / spec.throughput_batch), _MIN_THROUGHPUT_CALLS)
        for position, one in enumerate(everyone):
            if self._context.should_stop():
                raise Cancelled
            done = (index + position / len(everyone)) / spec.rounds
            self._context.progress(
                _SETUP_SHARE + (1 - _SETUP_SHARE) * done,
                "Measuring in interleaved bursts",
                step=index + 1,
                total_steps=spec.rounds,
            )
            single = BurstRequest(batch=1, calls=calls, limit_s=spec.burst_limit_s)
            batched = BurstRequest(batch=spec.throughput_batch, calls=batched_calls, limit_s=spec.burst_limit_s)
            one.single.append(one.process.ask(single, Burst))
            one.batched.append(one.process.ask(batched, Burst))
