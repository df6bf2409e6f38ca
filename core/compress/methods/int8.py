"""``compress.int8``: makes INT8 models of a trained model, measures them against the original, and judges them.

Each method's file is loaded and scored on the test samples before it counts. A rejected model is kept and marked, so
that it can be looked at; the run itself fails only when no method could write a model that runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from core.compress.gate import Verdict, judge
from core.compress.quantizer import Quantized, Quantizer, quantizer_for
from core.compress.sources import Sources, check_paths, find_sources
from core.compress.spec import Int8Spec, Method
from core.contracts.errors import PilothouseError, UserError
from core.contracts.events import Cell
from core.contracts.kinds import RunKind
from core.contracts.worker import RunContext

_COLUMNS = ("method", "verdict", "accuracy before", "accuracy after", "drop (points)", "size before (bytes)",
            "size after (bytes)", "size ratio", "INT8 layers", "seconds")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Outcome:
    method: Method
    quantized: Quantized
    verdict: Verdict
    seconds: float

    def row(self) -> list[Cell]:
        v = self.verdict
        ratio = v.size_after_bytes / v.size_before_bytes
        sizes: list[Cell] = [v.size_before_bytes, v.size_after_bytes, round(ratio, 4)]
        accuracies: list[Cell] = [v.accuracy_before, v.accuracy_after, round(v.drop_points, 3)]
        return [self.method, v.word, *accuracies, *sizes, self.quantized.quantized_layers, round(self.seconds, 2)]

    def meta(self, versions: str) -> dict[str, Cell]:
        v = self.verdict
        return {
            "method": self.method,
            "precision": "int8",
            "verdict": v.word,
            "accuracy": v.accuracy_after,
            "accuracy_before": v.accuracy_before,
            "drop_points": v.drop_points,
            "samples": v.samples,
            "fixed": v.fixed,
            "broken": v.broken,
            "size_before_bytes": v.size_before_bytes,
            "versions": versions,
        }


def _versions(quantizer: Quantizer) -> str:
    from importlib.metadata import version

    return ", ".join(f"{package} {version(package)}" for package in quantizer.versions)


def _compress(method: Method, sources: Sources, spec: Int8Spec, context: RunContext) -> _Outcome:
    """Quantize by one method and judge the written file."""
    quantizer = quantizer_for(method)
    model = sources.model_for(method)
    started = time.perf_counter()
    quantized = quantizer.quantize(model, sources.calibration, spec, context.artifacts_dir, context.log)
    seconds = time.perf_counter() - started
    if quantized.quantized_layers == 0:
        raise UserError(f"{quantizer.title} found no layer to quantize in {model.name}.", "Try another method.")
    logits = quantizer.predict(model, sources.test.x), quantizer.predict(quantized.model, sources.test.x)
    size_before = model.stat().st_size
    verdict = judge(sources.test.y, logits, (size_before, quantized.size_bytes), spec.max_accuracy_drop_points)
    outcome = _Outcome(method, quantized, verdict, seconds)
    context.artifact(quantized.model, kind=quantized.kind, meta=outcome.meta(_versions(quantizer)))
    for companion in quantized.companions:
        context.artifact(companion, kind=f"{quantized.kind}.weights")
    context.log(_sentence(quantizer.title, verdict), "info" if verdict.is_accepted else "warning")
    return outcome


def _sentence(title: str, verdict: Verdict) -> str:
    word = "accepted" if verdict.is_accepted else "rejected"
    saved = 100 * (1 - verdict.size_after_bytes / verdict.size_before_bytes)
    return (
        f"{title}: {word}. Accuracy {100 * verdict.accuracy_before:.2f} % before, {100 * verdict.accuracy_after:.2f} % "
        f"after ({verdict.samples} samples; gate {verdict.max_drop_points:g} points); file {saved:.0f} % smaller."
    )


def run(spec: Int8Spec, context: RunContext) -> None:
    """Quantize, measure and judge; see ``core.contracts.worker`` for the context.

    Raises:
        UserError: Inputs are missing or damaged, or no method could make a model.
    """
    context.started_from(None)
    context.progress(0.0, "Reading model and data")
    sources = find_sources(spec, context.home)
    outcomes: list[_Outcome] = []
    failures: list[PilothouseError] = []
    methods = spec.methods()
    for index, method in enumerate(methods):
        if context.should_stop():
            return
        context.progress((index + 0.1) / (len(methods) + 0.2), f"Quantizing with {quantizer_for(method).title}")
        try:
            outcomes.append(_compress(method, sources, spec, context))
        except PilothouseError as error:
            failures.append(error)
            context.log(f"{method}: {error}", "warning")
        context.table("int8", _COLUMNS, [outcome.row() for outcome in outcomes])
    if not outcomes:
        raise failures[0]
    context.result(_results(outcomes))
    context.progress(1.0, "Done")


def _results(outcomes: list[_Outcome]) -> dict[str, float]:
    values: dict[str, float] = {"accepted": float(sum(o.verdict.is_accepted for o in outcomes))}
    for outcome in outcomes:
        values[f"{outcome.method}/accuracy"] = outcome.verdict.accuracy_after
        values[f"{outcome.method}/drop_points"] = outcome.verdict.drop_points
        values[f"{outcome.method}/size_bytes"] = float(outcome.verdict.size_after_bytes)
    return values


KIND = RunKind(
    spec=Int8Spec,
    title="INT8 quantization",
    summary="Makes INT8 models for OpenVINO, ONNX Runtime and PyTorch, measures what they lose, and accepts or rejects.",
    group="compress",
    icon="compress",
    run=run,
    check=check_paths,
    examples=("int8.toml",),
)
