"""Sharing out wall time among categories, reading traces of GPUs, and thinning curves."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from core.train.profile.timeline import ON_CPU, ON_DEVICE, Interval, categories, decimated, split
from core.train.profile.trace import category_of, read_trace


def test_of_what_goes_on_at_once_one_thing_is_counted() -> None:
    found = split(
        [
            Interval(0, 40, "compute"),
            Interval(30, 60, "communication"),
            Interval(35, 38, "compute"),
            Interval(55, 70, "data loading"),
            Interval(90, 200, "optimizer"),
            Interval(10, 10, "optimizer"),
        ],
        0,
        100,
        ON_DEVICE,
    )
    assert found == {
        "optimizer": 10,
        "compute": 40,
        "communication": 20,
        "memory copy": 0,
        "data loading": 10,
        "idle": 20,
    }
    assert sum(one.fraction for one in categories(found, 1e-6)) == pytest.approx(1.0)


def test_on_a_cpu_an_operation_belongs_to_the_mark_around_it() -> None:
    found = split([Interval(0, 10, "optimizer"), Interval(2, 8, "compute")], 0, 10, ON_CPU)
    assert found["optimizer"] == 10
    assert found["compute"] == 0


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("aten::addmm", "compute"),
        ("aten::copy_", "memory copy"),
        ("gloo:all_reduce", "communication"),
        ("c10d::allreduce_", "communication"),
        ("_c10d_functional::wait_tensor", "communication"),
        ("autograd::engine::evaluate_function: AddmmBackward0", ""),
        ("forward_backward", ""),
    ],
)
def test_operations_are_told_apart_by_name(name: str, category: str) -> None:
    assert category_of(name) == category


def event(cat: str, name: str, start_ms: float, end_ms: float, **more: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "ts": start_ms * 1e3,
        "dur": (end_ms - start_ms) * 1e3,
        "tid": 1,
    } | more


def test_a_trace_of_a_gpu_counts_what_the_gpu_did(tmp_path: Path) -> None:
    events = [
        event("user_annotation", "step", 0, 50),
        event("user_annotation", "step", 50, 100),
        event("user_annotation", "data_wait", 0, 10),
        event("user_annotation", "data_wait", 90, 100, tid=2),
        event("cpu_op", "aten::addmm", 10, 90),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 10, 15, tid=7),
        event("kernel", "sgemm", 15, 60, tid=7),
        event("kernel", "ncclDevKernel_AllReduce", 50, 70, tid=8),
        event("kernel", "multi_tensor_apply_kernel", 70, 80, tid=7),
        event("gpu_user_annotation", "Optimizer.step#AdamW.step", 69, 81, tid=7),
        {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": 5e3, "tid": 1}
        | {"args": {"Total Allocated": 4096, "Device Type": 1, "Device Id": 0, "Bytes": 4096}},
    ]
    path = tmp_path / "trace.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"schemaVersion": 1, "traceEvents": events}, file)
    summary = read_trace(path)
    assert summary.wall_s == pytest.approx(0.1)
    assert {one.name: round(one.seconds * 1e3) for one in summary.categories} == {
        "compute": 45,
        "communication": 10,
        "data loading": 10,
        "optimizer": 10,
        "memory copy": 5,
        "idle": 20,
    }
    (curve,) = summary.memory
    assert (curve.device, curve.times_s, curve.allocated_bytes) == ("gpu 0", (0.005,), (4096,))


def test_a_thinned_curve_keeps_its_peaks_and_its_order() -> None:
    points = [(n / 1000, 10**9 if n == 12_345 else n % 100) for n in range(20_000)]
    curve = decimated("cpu", points, 500)
    assert len(curve.times_s) <= 501
    assert max(curve.allocated_bytes) == 10**9
    assert list(curve.times_s) == sorted(curve.times_s)
    assert decimated("cpu", points[:3]).allocated_bytes == (0, 1, 2)
