"""Every inference backend against one suite: the same scores as PyTorch gave, and a sentence for what goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.contracts.errors import UserError
from core.infer.backend import Backend, LoadOptions, Session, backend_named, backends
from core.runlog.arrays import LabelledArrays, read_arrays
from tests.helpers.small_models import SmallModel, make_small_model

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:::torch.*"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return make_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def test_data(small: SmallModel) -> LabelledArrays:
    return read_arrays(small.test)


@pytest.fixture(params=sorted(backends()))
def backend(request: pytest.FixtureRequest) -> Backend:
    return backend_named(request.param)


def model_for(backend: Backend, small: SmallModel) -> Path:
    return small.pt2 if ".pt2" in backend.suffixes else small.onnx


@pytest.fixture
def session(backend: Backend, small: SmallModel) -> Session:
    return backend.load(model_for(backend, small), LoadOptions(threads=1, precision="fp32"))


def test_it_says_that_it_can_run_here(backend: Backend) -> None:
    status = backend.status()
    assert status.is_available
    assert status.version
    assert status.version in status.sentence


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_it_gives_the_scores_that_pytorch_gave(
    batch: int, session: Session, small: SmallModel, test_data: LabelledArrays
) -> None:
    scores = session.infer(test_data.x[:batch])
    assert scores.shape == (batch, 10)
    np.testing.assert_allclose(scores, small.scores[:batch], rtol=1e-3, atol=1e-3)


def test_a_batch_after_another_of_a_different_size_is_right(
    session: Session, small: SmallModel, test_data: LabelledArrays
) -> None:
    session.infer(test_data.x[:5])
    np.testing.assert_allclose(session.infer(test_data.x[9:11]), small.scores[9:11], rtol=1e-3, atol=1e-3)


def test_the_bound_call_computes_and_leaves_later_batches_right(
    session: Session, small: SmallModel, test_data: LabelledArrays
) -> None:
    call = session.bind(test_data.x[:3])
    for _ in range(3):
        call()
    np.testing.assert_allclose(session.infer(test_data.x[3:4]), small.scores[3:4], rtol=1e-3, atol=1e-3)


def test_fp32_is_really_fp32(session: Session) -> None:
    execution = session.execution
    assert (execution.precision, execution.int8_layers, execution.layers) == ("fp32", 0, 4)


def test_it_knows_the_shape_of_its_input(session: Session) -> None:
    assert session.input_shape == (None, 1, 8, 8)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 1, 9, 8), np.float32),
        np.zeros((1, 8, 8), np.float32),
        np.zeros((2, 3, 8, 8), np.float32),
        np.zeros((1, 1, 8, 8), np.float64),
    ],
)
def test_a_wrong_batch_is_a_sentence(session: Session, batch: np.ndarray) -> None:
    for act in (session.infer, session.bind):
        with pytest.raises(UserError, match=r"\(n, 1, 8, 8\)"):
            act(batch)


def test_a_missing_file_is_a_sentence(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model file"):
        backend.load(tmp_path / f"missing{backend.suffixes[0]}", LoadOptions())


def test_a_damaged_file_is_a_sentence(backend: Backend, small: SmallModel, tmp_path: Path) -> None:
    whole = model_for(backend, small).read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("noise", b"no model at all"), ("empty", b"")):
        damaged = tmp_path / f"{name}{backend.suffixes[0]}"
        damaged.write_bytes(content)
        with pytest.raises(UserError) as caught:
            backend.load(damaged, LoadOptions())
        assert "cannot load" in caught.value.message
        assert "\n" not in caught.value.message


def test_a_file_of_another_format_is_a_sentence(backend: Backend, tmp_path: Path) -> None:
    other = tmp_path / "model.txt"
    other.write_text("hello")
    with pytest.raises(UserError, match="does not read"):
        backend.load(other, LoadOptions())


def test_a_precision_it_does_not_offer_is_a_sentence(backend: Backend, small: SmallModel) -> None:
    if "bf16" in backend.precisions:
        assert backend.load(model_for(backend, small), LoadOptions(precision="bf16")).execution.precision in (
            "bf16",
            "fp32",
        )
    else:
        with pytest.raises(UserError, match="does not offer bf16"):
            backend.load(model_for(backend, small), LoadOptions(precision="bf16"))


def test_a_closed_session_frees_its_model(session: Session, test_data: LabelledArrays) -> None:
    session.infer(test_data.x[:1])
    session.close()
    with pytest.raises(AttributeError):
        session.infer(test_data.x[:1])


def test_an_unknown_backend_is_a_sentence() -> None:
    with pytest.raises(UserError, match="pytorch"):
        backend_named("tensorrt")
