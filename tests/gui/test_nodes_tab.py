"""The nodes of a run on its page: over run directories as the mirror keeps them, read by the real readers."""

from __future__ import annotations

import time

import pytest
from PySide6.QtWidgets import QComboBox, QLabel, QPushButton, QRadioButton

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import RUN, Route
from app.viewmodels.curve_names import chart_name, curve_label, curve_reading, is_telemetry_key
from app.viewmodels.curve_set import CurveSet
from app.viewmodels.node_table import node_rows, rank_rows
from app.viewmodels.wording import hosts_text, natural_key
from app.views.dialogs.retry_dialog import RetryDialog, left_hosts
from app.views.run_detail_page import RunDetailPage
from app.views.theme import apply_theme
from core.contracts.ids import RunId
from core.contracts.nodes import NodeStatus, RankStatus, RunNodes
from core.contracts.states import RunState
from tests.helpers.builders import build_run
from tests.helpers.run_pages import opened_services
from tests.helpers.spread_runs import build_spread_run


@pytest.fixture
def page(qtbot, qapp, tmp_path):
    apply_theme(qapp, "light")
    with opened_services(tmp_path / "home", qtbot) as services:
        fleet = FleetController(services)
        made = RunDetailPage(services, fleet)
        qtbot.addWidget(made)
        made.resize(1200, 820)
        made.show()
        made.activate()
        yield made
        made.deactivate()
        made.controller.close()
        made.nodes.close()
        fleet.close()


def show(qtbot, page: RunDetailPage, run_dir) -> None:
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(run_dir.name)))
    qtbot.waitUntil(lambda: page._stack.currentIndex() == 1 and page.nodes.snapshot is not None, timeout=20_000)


def cells(table) -> list[list[str]]:
    return [
        [table.item(row, column).text() for column in range(table.columnCount())] for row in range(table.rowCount())
    ]


def test_a_run_on_two_hosts(qtbot, page):
    run_dir = build_spread_run(page._services.home_path, created=time.time() - 30, steps=60, state=RunState.SUCCEEDED)
    show(qtbot, page, run_dir)
    assert page.tabs.isTabVisible(page.tabs.indexOf(page.board_of_nodes))
    rows = cells(page.board_of_nodes.table)
    assert [row[1] for row in rows] == ["lab-0", "lab-1"]
    assert [row[5] for row in rows] == ["0–1", "2–3"]
    assert rows[0][6] == rows[1][6] == "None left, verified"
    ranks = cells(page.board_of_nodes.ranks)
    assert [row[0] for row in ranks] == ["0", "1", "2", "3"]
    assert ranks[3][2] == "55"
    assert page.board_of_nodes.findChild(QPushButton, "fetch_checkpoints").isEnabled()


def test_a_host_that_does_not_answer_is_shown_as_age(qtbot, page):
    run_dir = build_spread_run(page._services.home_path, created=time.time() - 1200, silent=(1,))
    show(qtbot, page, run_dir)
    row = cells(page.board_of_nodes.table)[1]
    assert row[3].startswith("No answer since")
    assert row[2] != "Failed"
    assert "no answer from lab-1" in page.board_of_nodes.findChild(QLabel, "nodes_summary").text()


def test_the_log_of_a_node_and_of_a_rank(qtbot, page):
    run_dir = build_spread_run(page._services.home_path, created=time.time() - 30, steps=60, state=RunState.SUCCEEDED)
    show(qtbot, page, run_dir)
    page.tabs.setCurrentWidget(page.log)
    qtbot.waitUntil(lambda: "node1 | [rank3]: step 40" in page.log.text.toPlainText(), timeout=10_000)
    rank = page.log.findChild(QComboBox, "log_rank")
    rank.setCurrentIndex(rank.findData(3))
    rank.activated.emit(rank.currentIndex())
    document = page.log.text.document()
    blocks = [document.findBlockByNumber(n) for n in range(document.blockCount())]
    seen = [block.text() for block in blocks if block.isVisible() and "[rank" in block.text()]
    assert seen == [f"node1 | [rank3]: step {step}" for step in (0, 20, 40)]
    page.board_of_nodes.node_log_wanted.emit("node1")
    qtbot.waitUntil(lambda: page.log.text.toPlainText().startswith("node1 starts"), timeout=10_000)
    assert "node0" not in page.log.text.toPlainText()
    rank.setCurrentIndex(0)
    rank.activated.emit(0)
    assert all(document.findBlockByNumber(n).isVisible() for n in range(document.blockCount()))


def test_every_hosts_readings_share_a_chart(qtbot, page):
    run_dir = build_spread_run(page._services.home_path, created=time.time() - 30, steps=200, state=RunState.SUCCEEDED)
    show(qtbot, page, run_dir)
    qtbot.waitUntil(lambda: "node1:cpu.percent" in page.controller.curves.series, timeout=10_000)
    charts = {chart.name: chart for chart in page.controller.curves.charts()}
    assert set(charts["Processor"].keys) == {"node0:cpu.percent", "node1:cpu.percent"}
    assert charts["Processor"].is_telemetry
    assert len(charts["loss"].keys) >= 4


def test_a_run_on_this_computer_has_no_nodes_tab(qtbot, page):
    run_dir = build_run(page._services.home_path, state=RunState.FAILED)
    show(qtbot, page, run_dir)
    assert not page.tabs.isTabVisible(page.tabs.indexOf(page.board_of_nodes))
    assert not page._buttons["run_again"].isVisible()


def test_retry_offers_the_hosts_that_are_left(qtbot, page):
    run_dir = build_spread_run(
        page._services.home_path, created=time.time() - 30, nodes=3, state=RunState.FAILED, silent=(2,)
    )
    show(qtbot, page, run_dir)
    assert page._buttons["run_again"].isVisible()
    page._on_retry()
    dialog = page.findChild(RetryDialog)
    assert dialog.findChild(QRadioButton, "retry_left").isChecked()
    assert "lab-0, lab-1" in dialog.findChild(QRadioButton, "retry_left").text()
    asked = []
    dialog.accepted.disconnect()
    dialog.accepted.connect(lambda: asked.append(dialog.hosts))
    dialog.accept()
    assert asked == [("lab-0", "lab-1")]


def test_names_of_curves_of_nodes_and_ranks():
    assert is_telemetry_key("node1:gpu.3.power_w")
    assert curve_label("node1:gpu.3.power_w") == "node1: GPU 3 power"
    assert not is_telemetry_key("loss:cpu")
    assert chart_name("train/loss [rank 3]") == chart_name("val/loss") == "loss"
    assert curve_reading("cpu.5.percent").is_plotted
    assert not curve_reading("node1:cpu.5.percent").is_plotted


def test_rows_in_words():
    now = 10_000.0
    nodes = RunNodes(
        nodes=(
            NodeStatus(node="node0", host="a", state=RunState.RUNNING, last_contact=now - 2, devices=(0, 2)),
            NodeStatus(node="node1", host="b", state=None, is_reachable=False),
            NodeStatus(node="node2", host="c", state=RunState.FAILED, last_contact=now - 100, alive_pids=(7, 8)),
        ),
        ranks=(
            RankStatus(rank=1, node="node1", step=1234, ts=now - 1, lag_s=0.5),
            RankStatus(rank=0, node="node0", step=1240, ts=now - 30, lag_s=0.0),
        ),
    )
    rows = node_rows(nodes, now)
    assert [row.contact for row in rows] == ["Answers", "No answer yet", "Last heard 1 min ago"]
    assert [row.processes for row in rows] == ["", "", "2 left: 7, 8"]
    assert [row.devices for row in rows] == ["GPU 0, 2", "Processor", "Processor"]
    assert [(row.rank, row.behind, row.lag) for row in rank_rows(nodes, now)] == [
        (0, 0, "In time"),
        (1, 6, "500 ms late"),
    ]
    assert left_hosts(nodes.nodes) == ("a", "c")


def test_many_hosts_and_ranks_in_words_and_order():
    assert hosts_text("local") == "local"
    assert hosts_text("a, b") == "a, b"
    assert hosts_text("a, b, c") == "a and 2 more"
    assert sorted(["lab-10", "lab-2", "Lab-1"], key=natural_key) == ["Lab-1", "lab-2", "lab-10"]
    curves = CurveSet()
    curves.declare(["loss [rank 10]", "loss [rank 2]", "loss", "node10:cpu.percent", "node2:cpu.percent"], 0.0)
    charts = {chart.name: chart.keys for chart in curves.charts()}
    assert charts["loss"] == ("loss", "loss [rank 2]", "loss [rank 10]")
    assert charts["Processor"] == ("node2:cpu.percent", "node10:cpu.percent")
