from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel

from app.viewmodels.device_table import COLUMNS, DeviceTable, holders_text
from app.viewmodels.hardware_facts import hardware_facts
from app.viewmodels.host_readings import core_percents, gpu_readings, host_readings, memory_use
from app.viewmodels.reading_history import ReadingHistory, TelemetrySample
from app.views.widgets.heat_map import HeatMap
from core.contracts.notices import Severity
from core.contracts.telemetry import CpuInfo, GpuInfo, GpuProcess, HardwareProblem, HardwareReport, MemoryInfo
from tests.helpers.windows import opened

GIB = 1 << 30


def two_gpus() -> HardwareReport:
    return HardwareReport(
        host="lab-3",
        system="Linux",
        kernel="6.1",
        cpu=CpuInfo(model="CPU", architecture="x86_64", logical_cores=64, affinity_cores=64, quota_cores=8.0),
        memory=MemoryInfo(total_bytes=64 * GIB, available_bytes=32 * GIB, swap_total_bytes=0, limit_bytes=16 * GIB),
        gpus=(
            GpuInfo(index=0, vendor="nvidia", vendor_index=0, name="H100", memory_total_bytes=80 * GIB, driver="580.1"),
            GpuInfo(index=1, vendor="nvidia", vendor_index=1, name="H100", problem="The GPU has fallen off the bus."),
        ),
        gpu_processes=(
            GpuProcess(gpu_index=0, pid=42, use="compute", memory_bytes=2 * GIB, name="python", user="ann"),
        ),
        problems=(
            HardwareProblem(part="gpu 1", severity=Severity.ERROR, message="GPU 1 cannot be read.", hint="Reset it."),
        ),
    )


def sample(**values: float | None) -> TelemetrySample:
    return TelemetrySample(ts=1.0, values={key.replace("__", "."): value for key, value in values.items()})


def test_the_table_of_gpus(qtmodeltester, qtbot):
    table = DeviceTable()
    table.set_report(two_gpus())
    qtmodeltester.check(table)
    table.set_sample(
        sample(gpu__0__utilization_percent=87.0, gpu__0__memory_used_bytes=float(4 * GIB), gpu__0__power_w=None)
    )
    rows = [[table.index(row, column).data() for column in range(len(COLUMNS))] for row in range(2)]
    assert rows[0] == ["0", "H100", "87 %", "4.0 GiB of 80.0 GiB", "—", "—", "ann: python (2.0 GiB)", "580.1"]
    assert rows[1][2] == "not readable"
    assert "fallen off" in table.index(1, 0).data(Qt.ItemDataRole.ToolTipRole)
    assert holders_text([]) == "free"


def test_facts_tell_what_may_be_used():
    facts = {fact.name: fact.value for fact in hardware_facts(two_gpus())}
    assert "8 usable here" in facts["Cores"]
    assert "16.0 GiB is this container's limit" in facts["Memory"]
    assert facts["GPUs"] == "2 x H100"
    assert "Container" not in facts


def test_readings_of_a_container_with_a_limit():
    within = sample(
        memory__used_bytes=1.0, memory__total_bytes=100.0, limit__memory_used_bytes=5.0, limit__memory_total_bytes=10.0
    )
    assert memory_use(within) == (5.0, 10.0)
    assert host_readings(within)[0].share == 0.5
    assert gpu_readings(within) == ()


def test_cores_by_their_number():
    values = {f"cpu.{number}.percent": float(number) for number in (0, 2, 10)}
    cores = core_percents(TelemetrySample(ts=0.0, values=values))
    assert len(cores) == 11
    assert (cores[2], cores[1], cores[10]) == (2.0, None, 10.0)


def test_the_history_keeps_what_it_should():
    history = ReadingHistory(3)
    for number in range(5):
        history.append(
            TelemetrySample(ts=float(number), values={"cpu.percent": None if number == 3 else float(number)})
        )
    assert history.recent("cpu.percent", 2) == [None, 4.0]
    assert history.ages_s().tolist() == [-2.0, -1.0, 0.0]
    assert str(history.series("cpu.percent").tolist()) == "[2.0, nan, 4.0]"


def test_a_heat_map_of_many_cores_fits_and_tells_each(qtbot):
    heat = HeatMap("Core")
    qtbot.addWidget(heat)
    heat.set_percents([float(number % 100) for number in range(256)])
    heat.resize(300, heat.heightForWidth(300))
    heat.show()
    cell, columns = heat._grid(300)
    last = heat._cell_box(255, cell, columns)
    assert heat.rect().contains(last.toRect())
    assert heat.index_at(last.center().toPoint()) == 255


def test_the_page_shows_this_computer(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        page = it.go("hosts")
        overview = page.detail.overview
        it.wait(lambda: it.window.telemetry.report is not None and overview.plots)
        titles = [plot.plan.title for plot in overview.plots]
        assert {"Processor", "Each core", "Memory"} <= set(titles)
        assert overview.facts.count() >= 8
        it.wait(lambda: len(it.window.telemetry.history) >= 2)
        curve = overview.plots[0]._curves[0]
        it.wait(lambda: len(curve.yData) >= 2)
        assert "%" in overview.plots[0]._values.whole()


def test_problems_are_shown_with_their_remedy(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        page = it.go("hosts")
        it.wait(lambda: it.window.telemetry.report is not None)
        overview = page.detail.overview
        overview.show_report(two_gpus())
        assert overview._problem_card.isVisible()
        assert overview.gpu_card.isVisible()
        words = [label.text() for label in overview._problem_card.findChildren(QLabel)]
        assert {"GPU 1 cannot be read.", "Reset it."} <= set(words)


def test_nothing_is_read_while_nobody_looks(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        it.wait(lambda: len(it.window.telemetry.history))
        it.window.telemetry.pause()
        assert not it.window.telemetry._timer.isActive()
        it.shell.bring_to_front()
        assert it.window.telemetry._timer.isActive()
