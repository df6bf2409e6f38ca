"""The quick start through real supervisors: stopped while it trains, resumed, and finished with a report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.pipeline.result import quickstart_result
from core.pipeline.spec import QuickstartSpec
from core.runlog.lineage import children_of
from core.settings.home import Home
from core.workspace.workspace import Workspace
from tests.helpers.lab import opened_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(540)
LIMIT_S = 240.0


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with opened_lab(Home(tmp_path / "home")) as lab:
        opened = Workspace.open(lab.home.path)
        yield opened
        lab.launched += [RunId(path.name) for path in lab.home.runs_dir.iterdir()]
        opened.close()


def test_it_survives_a_stop_and_measures_six_variants(workspace: Workspace) -> None:
    run_id = workspace.launch_spec(QuickstartSpec(name="Quick", epochs=3, queries=40, seed=1))
    run_dir = workspace.home.run_dir(run_id)
    train = wait_for(lambda: children_of(run_dir).get("train"), "the training to start", LIMIT_S)

    def trains() -> bool:
        workspace.sync()
        return (workspace.summary(train).step or 0) >= 5

    wait_for(trains, "step 5 of the training", LIMIT_S)
    workspace.stop(run_id)
    assert workspace.wait(run_id).state is RunState.STOPPED
    assert workspace.wait(train).state is RunState.STOPPED

    workspace.resume(run_id)
    ended = workspace.wait(run_id)
    assert ended.state is RunState.SUCCEEDED, workspace.log(run_id, 0).text
    result = quickstart_result(workspace, run_id)
    assert result.runs[:2] == [run_id, train], "the resumed quick start goes on with the same training"
    assert workspace.summary(train).attempt == 2
    backends = ("pytorch", "onnxruntime", "openvino")
    assert [(v.backend, v.precision) for v in result.variants] == [(b, p) for b in backends for p in ("fp32", "int8")]
    assert result.accuracy > 0.9
    fp32 = {v.backend: v for v in result.variants if v.precision == "fp32"}
    for v in result.variants:
        assert abs(v.accuracy - result.accuracy) < 0.03
        assert 0 < v.p50_ms <= v.p99_ms
        assert v.throughput > 0
        assert v.precision == "fp32" or v.size_bytes < fp32[v.backend].size_bytes / 2
    html = Path(result.report).read_text(encoding="utf-8")
    assert f"{100 * result.accuracy:.2f} %" in html
    assert "<svg" in html
    assert workspace.detail(run_id).children == tuple(RunId(child) for child in result.runs[1:])
    assert workspace.summary(RunId(result.runs[3])).parent == result.runs[2]
    assert workspace.summary(RunId(result.runs[2])).parent == train
