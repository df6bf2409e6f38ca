"""What of a layout is refused before a launch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.train.models.shape import ModelShape
from core.train.parallel.cases import CASES, REFUSED
from core.train.parallel.layout import check_layout, data_ranks, pipeline_stages
from core.train.specs.compute import ComputeSpec
from core.train.specs.parallel import ParallelSpec, PipelineSchedule

LLAMA = ModelShape(
    family="llama",
    parameters=1000,
    layers=4,
    hidden=32,
    heads=4,
    key_value_heads=2,
    intermediate=64,
    vocabulary=64,
    is_splittable=True,
)


def fields(
    parallel: ParallelSpec,
    shape: ModelShape | None = LLAMA,
    *,
    nodes: int = 1,
    accumulation: int = 8,
    micro_batch: int = 2,
    global_batch: int = 0,
    length: int = 64,
) -> list[str]:
    return [
        problem.field
        for problem in check_layout(
            parallel,
            shape,
            nodes=nodes,
            grad_accum_steps=accumulation,
            micro_batch=micro_batch,
            global_batch=global_batch,
            sequence_length=length,
        )
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_layouts_that_are_proved_are_not_refused(case) -> None:
    assert fields(case.parallel, accumulation=case.micro_batches, length=16) == []


@pytest.mark.parametrize("case", REFUSED.values(), ids=lambda case: case.name)
def test_layouts_that_train_wrong_are_refused(case) -> None:
    assert fields(case.parallel, accumulation=case.micro_batches) == ["parallel.schedule"]


def test_ranks_and_stages_are_counted() -> None:
    parallel = ParallelSpec(processes=8, tensor=2, pipeline=2, schedule="interleaved", stages_per_rank=3)
    assert (data_ranks(parallel, 1), data_ranks(parallel, 2), pipeline_stages(parallel)) == (2, 4, 6)
    assert pipeline_stages(ParallelSpec(pipeline=4, schedule="zbv")) == 8


@pytest.mark.parametrize(
    ("parallel", "expected"),
    [
        (ParallelSpec(processes=3, tensor=2), "parallel.processes"),
        (ParallelSpec(processes=1, context=2), "parallel.processes"),
        (ParallelSpec(processes=4, sharding="zero3", replicas=3), "parallel.replicas"),
        (ParallelSpec(processes=4, tensor=4), "parallel.tensor"),
        (ParallelSpec(processes=8, pipeline=8), "parallel.pipeline"),
        (ParallelSpec(processes=4, pipeline=4, schedule="interleaved"), "parallel.pipeline"),
        (ParallelSpec(processes=2, pipeline=2, schedule="dualpipev", sharding="zero2"), "parallel.schedule"),
    ],
)
def test_a_wrong_degree_is_named(parallel: ParallelSpec, expected: str) -> None:
    assert fields(parallel) == [expected]


def test_micro_batches_must_fill_the_pipeline() -> None:
    two = ParallelSpec(processes=2, pipeline=2)
    assert fields(two, accumulation=1) == ["optimizer.grad_accum_steps"]
    assert fields(ParallelSpec(processes=2, pipeline=2, schedule="interleaved"), accumulation=3) == [
        "optimizer.grad_accum_steps"
    ]
    assert fields(ParallelSpec(processes=2, pipeline=2, schedule="dualpipev"), accumulation=3) == [
        "optimizer.grad_accum_steps"
    ]
    assert fields(two, accumulation=3) == []


def test_the_length_must_divide_by_slices() -> None:
    assert fields(ParallelSpec(processes=2, context=2), length=62) == ["parallel.context"]
    assert fields(ParallelSpec(processes=2, tensor=2), length=63) == ["parallel.sequence"]
    assert fields(ParallelSpec(processes=2, tensor=2, sequence=False), length=63) == []


def test_a_batch_that_does_not_multiply_out_says_all_numbers() -> None:
    problems = check_layout(
        ParallelSpec(processes=4),
        None,
        nodes=2,
        grad_accum_steps=3,
        micro_batch=5,
        global_batch=100,
        sequence_length=0,
    )
    assert [p.field for p in problems] == ["global_batch"]
    assert "micro-batch 5 x accumulation 3 x data ranks 8 = 120, not 100" in problems[0].message


def test_models_of_other_families_and_with_adapters_are_refused() -> None:
    image = ModelShape(family="image")
    assert fields(ParallelSpec(processes=2, pipeline=2), image) == ["parallel.pipeline"]
    assert fields(ParallelSpec(processes=2, sharding="zero3"), image) == []
    adapted = ModelShape(
        family="llama",
        parameters=1000,
        trained_parameters=10,
        layers=4,
        heads=4,
        key_value_heads=2,
        intermediate=64,
        vocabulary=64,
        is_splittable=True,
    )
    assert fields(ParallelSpec(processes=2, tensor=2), adapted) == ["parallel.tensor"]


def test_zero_bubble_goes_with_neither_selective_checkpointing_nor_compilation() -> None:
    def found(schedule: PipelineSchedule) -> list[str]:
        problems = check_layout(
            ParallelSpec(processes=2, pipeline=2, schedule=schedule),
            LLAMA,
            nodes=1,
            grad_accum_steps=4,
            micro_batch=1,
            global_batch=0,
            sequence_length=64,
            compute=ComputeSpec(activation_checkpointing="selective", compile=True),
        )
        return [problem.field for problem in problems]

    assert found("zbv") == ["compute.activation_checkpointing", "compute.compile"]
    assert found("1f1b") == []


def test_every_problem_is_found_at_once() -> None:
    parallel = ParallelSpec(processes=12, tensor=3, pipeline=2, context=2, schedule="zbv", sharding="zero3", replicas=5)
    found = fields(parallel, accumulation=1, global_batch=7, length=50)
    assert sorted(found) == [
        "global_batch",
        "optimizer.grad_accum_steps",
        "parallel.context",
        "parallel.replicas",
        "parallel.schedule",
        "parallel.tensor",
    ]


def test_the_check_needs_no_torch() -> None:
    code = "import sys, core.train.parallel.layout, core.train.parallel.cases, core.cli.layouts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
