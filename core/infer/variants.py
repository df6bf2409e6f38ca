"""Which models a benchmark measures on which backends: named in the spec, or found along the lineage of its parent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from core.contracts.errors import FieldProblem, UserError
from core.infer.backend import Precision, backends
from core.infer.spec import BenchmarkSpec
from core.runlog.lineage import inherited_artifacts

TEST_KIND = "data.test"
_BY_KIND: tuple[tuple[str, str, Precision], ...] = (
    ("model.torch_export", "pytorch", "fp32"),
    ("model.torch_export.int8", "pytorch", "int8"),
    ("model.onnx", "onnxruntime", "fp32"),
    ("model.onnx.int8", "onnxruntime", "int8"),
    ("model.onnx", "openvino", "fp32"),
    ("model.openvino.int8", "openvino", "int8"),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A model file on a backend in a precision."""

    backend: str
    precision: Precision
    model: Path

    @property
    def size_bytes(self) -> int:
        """Size of the model's files; an OpenVINO IR keeps its weights beside it, large ONNX models may, too."""
        companions = (
            (self.model.with_suffix(".bin"),)
            if self.model.suffix == ".xml"
            else (self.model.with_name(f"{self.model.name}.data"),)
        )
        return sum(path.stat().st_size for path in (self.model, *companions) if path.is_file())


@dataclass(frozen=True, slots=True)
class NamedVariant:
    """A variant under a name that no other one of the benchmark has."""

    name: str
    variant: Variant


def parse_variant(text: str) -> Variant:
    """Read ``backend:precision:path``.

    Raises:
        UserError: It has another form, or an unknown backend or precision.
    """
    parts = text.split(":", 2)
    precisions = get_args(Precision)
    if len(parts) != 3 or parts[0] not in backends() or parts[1] not in precisions:
        raise UserError(
            f"{text!r} is no variant.",
            f"Write backend:precision:path with a backend of {', '.join(sorted(backends()))} and a precision of "
            f"{', '.join(precisions)}.",
        )
    return Variant(parts[0], cast("Precision", parts[1]), Path(parts[2]))


def check_variants(spec: BenchmarkSpec) -> tuple[FieldProblem, ...]:
    """Find malformed variants, missing files, and inputs that are neither named nor to be had from a run."""
    problems: list[FieldProblem] = []
    for text in spec.variants:
        try:
            variant = parse_variant(text)
        except UserError as error:
            problems.append(FieldProblem(field="variants", message=error.message, hint=error.hint))
            continue
        if not variant.model.is_file():
            problems.append(
                FieldProblem(
                    field="variants", message=f"There is no file {str(variant.model)!r}.", hint="Check the path."
                )
            )
    if spec.test_data and not Path(spec.test_data).is_file():
        problems.append(
            FieldProblem(field="test_data", message=f"There is no file {spec.test_data!r}.", hint="Check the path.")
        )
    for field, given in (("variants", bool(spec.variants)), ("test_data", bool(spec.test_data))):
        if not given and not spec.parent:
            problems.append(
                FieldProblem(field=field, message="is missing.", hint="Name it, or a run to build on in 'parent'.")
            )
    return tuple(problems)


def find_variants(spec: BenchmarkSpec, home: Path) -> tuple[tuple[NamedVariant, ...], Path]:
    """Return the variants to measure, in a fixed order, and the test data.

    Raises:
        UserError: There is nothing to measure, or no test data.
    """
    inherited = inherited_artifacts(home / "runs", spec.parent) if spec.parent else {}
    if spec.variants:
        variants = [parse_variant(text) for text in spec.variants]
    else:
        variants = [
            Variant(backend, precision, inherited[kind]) for kind, backend, precision in _BY_KIND if kind in inherited
        ]
    if not variants:
        raise UserError(f"Run {spec.parent!r} and its parents left no model to measure.", "Name variants in the spec.")
    test = Path(spec.test_data) if spec.test_data else inherited.get(TEST_KIND)
    if test is None:
        raise UserError(f"Run {spec.parent!r} and its parents left no test data.", "Name test_data in the spec.")
    return _named(variants), test


def _named(variants: list[Variant]) -> tuple[NamedVariant, ...]:
    """Name each variant by backend and precision, and by its file where that is not enough."""
    short = [f"{variant.backend} {variant.precision}" for variant in variants]
    named: list[NamedVariant] = []
    for index, (name, variant) in enumerate(zip(short, variants, strict=True)):
        unique = name if short.count(name) == 1 else f"{name} {variant.model.stem} #{index + 1}"
        named.append(NamedVariant(unique, variant))
    return tuple(named)
