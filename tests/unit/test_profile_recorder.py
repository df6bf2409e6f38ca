"""Profiles recorded by torch.profiler within a small training: what is asked for is recorded, summarized and readable."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn
from torch.profiler import record_function

from core.contracts.profiles import CATEGORIES, SUMMARY_KIND, TRACE_KIND, ProfileReport
from core.jobs.context import WorkerContext
from core.jobs.profiling import request_profile, withdraw_profile
from core.train.engine.contracts import Mesh
from core.train.profile.recorder import ProfileRecorder
from core.train.specs.tuning import TuningSpec
from tests.helpers.recording_context import RecordingContext, as_context
from tests.helpers.waiting import wait_for

RUN_ID = "20260101-000000-test-abcdef"


class Training:
    """A few real steps of a small network."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 8))
        self.optimizer = torch.optim.AdamW(self.model.parameters())

    def step(self) -> None:
        with record_function("data_wait"):
            batch = torch.randn(256, 64)
        with record_function("forward_backward"):
            self.model(batch).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def train(recorder: ProfileRecorder, steps: range) -> None:
    training = Training()
    for step in steps:
        recorder.before_step(step)
        training.step()
        recorder.after_step(step)


def report_of(context: RecordingContext) -> ProfileReport:
    return msgspec.json.decode(Path(context.artifacts[SUMMARY_KIND].path).read_bytes(), type=ProfileReport)


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path)


def test_the_step_of_the_spec_is_recorded_once_with_its_costs(context: RecordingContext) -> None:
    recorder = ProfileRecorder(
        as_context(context), Mesh(device=torch.device("cpu")), TuningSpec(profile_at_step=3, profile_steps=2)
    )
    train(recorder, range(1, 8))
    report = report_of(context)
    context.artifacts.clear()
    train(recorder, range(3, 7))
    assert not context.artifacts, "a roll-back that comes to the step again records nothing"
    assert (report.first_step, report.steps, report.rank, report.device) == (3, 2, 0, "cpu")
    names = [cost.name for cost in report.operators]
    assert "aten::addmm" in names
    assert names[0] != "[memory]"
    linear = next(cost for cost in report.operators if cost.name == "aten::addmm")
    assert linear.calls == 4, "two layers, two steps"
    assert 0 < linear.self_cpu_s <= linear.total_cpu_s <= report.wall_s
    assert {"data_wait", "forward_backward"} <= {cost.name for cost in report.phases}


def test_wall_time_is_shared_out_whole(context: RecordingContext) -> None:
    recorder = ProfileRecorder(as_context(context), Mesh(device=torch.device("cpu")), TuningSpec(profile_at_step=2))
    train(recorder, range(1, 6))
    report = report_of(context)
    assert tuple(one.name for one in report.categories) == CATEGORIES
    assert sum(one.fraction for one in report.categories) == pytest.approx(1.0)
    assert sum(one.seconds for one in report.categories) == pytest.approx(report.wall_s)
    for seen in ("compute", "data loading", "optimizer"):
        assert report.fraction(seen) > 0.0, seen
    assert report.fraction("communication") == 0.0


def test_memory_rises_and_falls_and_the_trace_is_one_that_perfetto_reads(context: RecordingContext) -> None:
    recorder = ProfileRecorder(as_context(context), Mesh(device=torch.device("cpu")), TuningSpec(profile_at_step=1))
    train(recorder, range(1, 5))
    report = report_of(context)
    (curve,) = report.memory
    assert curve.device == "cpu"
    assert len(curve.times_s) == len(curve.allocated_bytes) <= 520
    assert list(curve.times_s) == sorted(curve.times_s)
    assert max(curve.allocated_bytes) - min(curve.allocated_bytes) >= 256 * 512 * 4, "the hidden layer's activations"
    trace = Path(context.artifacts[TRACE_KIND].path)
    assert trace == Path(context.artifacts[SUMMARY_KIND].path).parent / report.trace_path
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    assert sum(one.get("name") == "step" and one.get("ph") == "X" for one in events) == 3


def test_a_request_is_taken_from_the_control_folder_with_its_number_of_steps(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / RUN_ID
    run_dir.mkdir(parents=True)
    context = WorkerContext(tmp_path, run_dir, 1)
    recorder = ProfileRecorder(context, Mesh(device=torch.device("cpu")), TuningSpec())
    train(recorder, range(1, 3))
    request_profile(run_dir, 2, (0, 1))
    steps = iter(range(3, 10_000))
    folders = run_dir / "artifacts" / "profiles"

    def is_recorded() -> bool:
        train(recorder, range(step := next(steps), step + 1))
        return any(folders.glob("*/profile.json"))

    wait_for(is_recorded, "the profile")
    assert not (run_dir / "control" / "profile").exists()
    assert (run_dir / "control" / "profile.1").exists(), "another rank's"
    (path,) = folders.glob("*-rank-0/profile.json")
    assert msgspec.json.decode(path.read_bytes(), type=ProfileReport).steps == 2
    other = ProfileRecorder(context, Mesh(device=torch.device("cpu"), rank=1, world=2), TuningSpec(profile_at_step=1))
    train(other, range(1, 4))
    assert (run_dir / "artifacts/profiles/step-0000000001-rank-1/profile.json").exists()
    context.close()


def test_the_step_of_the_spec_is_recorded_by_rank_0_alone(context: RecordingContext) -> None:
    mesh = Mesh(device=torch.device("cpu"), rank=1, world=2)
    recorder = ProfileRecorder(as_context(context), mesh, TuningSpec(profile_at_step=1))
    train(recorder, range(1, 4))
    assert not context.artifacts


def test_withdrawn_requests_are_gone(tmp_path: Path) -> None:
    request_profile(tmp_path, 5, (0, 3))
    withdraw_profile(tmp_path)
    assert not list((tmp_path / "control").iterdir())


def test_a_training_that_ends_within_a_profile_leaves_what_was_recorded(context: RecordingContext) -> None:
    recorder = ProfileRecorder(
        as_context(context), Mesh(device=torch.device("cpu")), TuningSpec(profile_at_step=2, profile_steps=100)
    )
    train(recorder, range(1, 4))
    assert not context.artifacts
    recorder.close()
    assert report_of(context).steps == 2


def test_a_profile_that_cannot_be_written_is_a_warning_and_the_training_goes_on(context: RecordingContext) -> None:
    (context.artifacts_dir / "profiles").write_text("in the way", encoding="utf-8")
    recorder = ProfileRecorder(as_context(context), Mesh(device=torch.device("cpu")), TuningSpec(profile_at_step=1))
    train(recorder, range(1, 6))
    (warning,) = [message for level, message in context.logs if level == "warning"]
    assert warning.startswith("The profile cannot be written")
    assert not context.artifacts
