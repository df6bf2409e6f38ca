"""Finds and reads what a compression needs: models and data named in the spec, or those of the run it builds on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.compress.spec import Int8Spec, Method
from core.contracts.errors import FieldProblem, UserError
from core.runlog.arrays import LabelledArrays, read_arrays
from core.runlog.lineage import inherited_artifacts

ONNX_KIND = "model.onnx"
TORCH_KIND = "model.torch_export"
CALIBRATION_KIND = "data.calibration"
TEST_KIND = "data.test"


@dataclass(frozen=True, slots=True)
class Sources:
    """The inputs of one compression; a model is None where it is not needed."""

    onnx_model: Path | None
    torch_model: Path | None
    calibration: LabelledArrays
    test: LabelledArrays

    def model_for(self, method: Method) -> Path:
        """Return the model that a method starts from."""
        model = self.torch_model if method == "pytorch" else self.onnx_model
        assert model is not None
        return model


def check_paths(spec: Int8Spec) -> tuple[FieldProblem, ...]:
    """Find named files that are not there, and inputs that are neither named nor to be had from a run."""
    named = {
        "model": (spec.model, any(m != "pytorch" for m in spec.methods())),
        "torch_model": (spec.torch_model, "pytorch" in spec.methods()),
        "calibration_data": (spec.calibration_data, True),
        "test_data": (spec.test_data, True),
    }
    problems: list[FieldProblem] = []
    for field, (text, is_needed) in named.items():
        if text and not Path(text).is_file():
            problems.append(FieldProblem(field=field, message=f"There is no file {text!r}.", hint="Check the path."))
        elif not text and is_needed and not spec.parent:
            problems.append(
                FieldProblem(field=field, message="is missing.", hint="Name a file, or a run to build on in 'parent'.")
            )
    return tuple(problems)


def find_sources(spec: Int8Spec, home: Path) -> Sources:
    """Locate the models and read the data.

    Raises:
        UserError: Something is neither named nor among the artifacts of the run it builds on, or unreadable.
    """
    inherited = inherited_artifacts(home / "runs", spec.parent) if spec.parent else {}

    def locate(named: str, kind: str, title: str) -> Path:
        if named:
            return Path(named)
        if kind in inherited:
            return inherited[kind]
        where = f"Run {spec.parent!r} left" if spec.parent else "There is"
        raise UserError(f"{where} no {title}.", "Name a file in the spec, or build on a run that made one.")

    needs_onnx = any(method != "pytorch" for method in spec.methods())
    needs_torch = "pytorch" in spec.methods()
    calibration = read_arrays(locate(spec.calibration_data, CALIBRATION_KIND, "calibration data"))
    return Sources(
        onnx_model=locate(spec.model, ONNX_KIND, "ONNX model") if needs_onnx else None,
        torch_model=locate(spec.torch_model, TORCH_KIND, "PyTorch export") if needs_torch else None,
        calibration=calibration.take(spec.calibration_samples, spec.seed),
        test=read_arrays(locate(spec.test_data, TEST_KIND, "test data")),
    )
