"""States of the window that only appear after some steps, staged for screenshots: a host's tabs, dialogs, wizard steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from PySide6.QtTest import QTest
from PySide6.QtWidgets import QScrollArea, QWidget

from app.__main__ import Window
from app.controllers.routes import HOSTS, RUN, TRAIN, Route
from app.views.dialogs.questions import HostKeyDialog, SecretDialog
from app.views.dialogs.retry_dialog import RetryDialog
from app.views.hosts.host_dialog import HostDialog
from app.views.hosts.runtime_dialog import RuntimeDialog
from app.views.hosts_page import HostsPage
from app.views.run_detail_page import RunDetailPage
from app.views.train_page import TrainPage
from app.views.wizards.new_run import Step
from core.contracts.forms import FormValue, SpecReview
from core.contracts.hosts import HostKeyQuestion, Progress, RuntimeRecord, SecretQuestion
from core.contracts.runs import RunQuery
from tests.helpers import fleet_scenes

Build = Callable[[Window], QWidget]


def _hosts(window: Window, name: str, tab: str) -> HostsPage:
    window.services.router.go(Route(page=HOSTS, text=name))
    page = window.shell.stack.page(HOSTS)
    assert isinstance(page, HostsPage)
    page.detail.tabs.setCurrentWidget(getattr(page.detail, tab))
    page.detail.show_book()
    return page


def _host_tab(name: str, tab: str) -> Build:
    def build(window: Window) -> QWidget:
        _hosts(window, name, tab)
        return window.shell

    return build


def _installing(window: Window) -> QWidget:
    page = _hosts(window, "lab-1", "runtime")
    task = window.fleet.task("Set up", lambda _fleet, _watcher: None)
    page.detail.runtime.panel.follow(task)
    page.detail.runtime._work.show()
    for line in ("Resolved 38 packages in 1.2 s", "Downloading torch (812 MiB)", "Downloading nvidia-cudnn-cu12"):
        page.detail.runtime.panel.show_progress(Progress(stage="Fetching packages", done=0.41, line=line))
    return window.shell


def _dialog(make: Callable[[Window], QWidget]) -> Build:
    def build(window: Window) -> QWidget:
        dialog = make(window)
        dialog.show()
        return dialog

    return build


def _unknown_key(window: Window) -> QWidget:
    question = HostKeyQuestion(
        host="lab-3 (10.0.0.5)",
        key_type="ssh-ed25519",
        fingerprint="SHA256:uNiVztksCsDhcc0u9e8BrDD9u0LZ6sD3ZpSRbHqhqEU",
    )
    return HostKeyDialog(question, window.shell)


def _passphrase(window: Window) -> QWidget:
    question = SecretQuestion(kind="passphrase", about="/home/ann/.ssh/id_ed25519", host="lab-3", is_retry=True)
    return SecretDialog(question, window.shell)


def _runtime(window: Window) -> QWidget:
    return RuntimeDialog("lab-1", RuntimeRecord(), window.shell)


def _wizard(window: Window, values: dict[str, FormValue]) -> TrainPage:
    window.services.router.go(Route(page=TRAIN, kind="train.script", values=values))
    page = window.shell.stack.page(TRAIN)
    assert isinstance(page, TrainPage)
    while page.wizard.state is None:
        QTest.qWait(50)
    page.wizard.state.load(values)
    return page


def _where(values: dict[str, FormValue]) -> Build:
    def build(window: Window) -> QWidget:
        page = _wizard(window, values)
        page.wizard._go(Step.WHERE)
        for name in ("lab-0", "lab-3", "lab-2"):
            page.wizard.where_step._picker.show_gpus(
                name, "6 of 8 free · NVIDIA H100 80GB HBM3 · held by ben (88 python)"
            )
        return window.shell

    return build


def _review(window: Window) -> QWidget:
    page = _wizard(window, {"launch.hosts": ["lab-0", "lab-3"], "name": "digits on two hosts"})
    wizard = page.wizard
    wizard._controller.review = lambda *_: None  # type: ignore[method-assign]
    wizard._go(Step.REVIEW)
    toml = 'kind = "train.script"\nname = "digits on two hosts"\nscript = "train.py"\n\n[launch]\nhosts = ["lab-0", "lab-3"]\n'
    review = SpecReview(
        problems=(), warnings=(), toml=toml, command="pilothouse run spec.toml --hosts lab-0,lab-3 --follow"
    )
    step = wizard._review_step
    step.show_review(review)
    step.show_remote("2 hosts")
    step.show_plan(PLAN)
    wizard._is_ready = True
    step._checks.show()
    wizard._on_checked((fleet_scenes.report("lab-0"), fleet_scenes.report("lab-3")))
    return window.shell


PLAN = """Nodes
  node0  lab-0   10.0.0.2 (ens5)   GPUs 4, 5, 6, 7   4 processes   head
  node1  lab-3   10.0.0.5 (ens5)   GPUs 0, 1, 2, 3   4 processes

Copied to each
  ~/digits (code)    212 files, 1.4 MiB   without .git, __pycache__, .venv

Command on each
  torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d --rdzv-endpoint=10.0.0.2:41733 -- train.py --epochs 3
"""


def _spread_run(window: Window) -> RunDetailPage:
    found = window.services.workspace.runs(RunQuery(text="hosts", limit=1)).rows[0]
    window.services.router.go(Route(page=RUN, run_id=found.run_id))
    page = window.shell.stack.page(RUN)
    assert isinstance(page, RunDetailPage)
    while page._stack.currentIndex() == 0 or page.nodes.snapshot is None:
        QTest.qWait(50)
    return page


def _training(tab: str) -> Build:
    def build(window: Window) -> QWidget:
        found = window.services.workspace.runs(RunQuery(text="small llama", limit=1)).rows[0]
        window.services.router.go(Route(page=RUN, run_id=found.run_id))
        page = window.shell.stack.page(RUN)
        assert isinstance(page, RunDetailPage)
        while page.controller.run_id != found.run_id or page._stack.currentIndex() == 0:
            QTest.qWait(50)
        page.tabs.setCurrentWidget(getattr(page, tab))
        return window.shell

    return build


def _settings(values: dict[str, FormValue], *, layout: str = "") -> Build:
    """Stage the settings of a language model; with ``layout`` the layout's group, filled in by that button."""

    def build(window: Window) -> QWidget:
        window.services.router.go(Route(page=TRAIN, kind="train.language", values=values))
        page = window.shell.stack.page(TRAIN)
        assert isinstance(page, TrainPage)
        while page.wizard.state is None or page.wizard.step is not Step.SETTINGS:
            QTest.qWait(50)
        page.wizard._advanced.setChecked(bool(layout))
        form = page.wizard._forms["train.language"]
        if layout and form.layout_panel is not None:
            form.focus_field("parallel.processes")
            form.layout_panel._buttons[layout].click()
            QTest.qWait(1500)
            form.ensureWidgetVisible(form.layout_panel, 0, 40)
        return window.shell

    return build


def _run_tab(tab: str) -> Build:
    def build(window: Window) -> QWidget:
        page = _spread_run(window)
        page.tabs.setCurrentWidget(getattr(page, tab))
        return window.shell

    return build


def _sweep(text: str, ranges: dict[int, tuple[float, float]]) -> Build:
    def build(window: Window) -> QWidget:
        found = window.services.workspace.runs(RunQuery(text=text, limit=1)).rows[0]
        window.services.router.go(Route(page=RUN, run_id=found.run_id))
        page = window.shell.stack.page(RUN)
        assert isinstance(page, RunDetailPage)
        while page.controller.run_id != found.run_id or page.sweep.model.rowCount() == 0:
            QTest.qWait(50)
        for axis, span in ranges.items():
            page.sweep.plot.set_brush(axis, span)
            page.sweep.findChild(QScrollArea).ensureWidgetVisible(page.sweep.table)
        return window.shell

    return build


def _retry(window: Window) -> QWidget:
    page = _spread_run(window)
    dialog = RetryDialog(window.fleet, page.nodes.snapshot.nodes.nodes, window.shell)
    dialog.show()
    return dialog


def stages(state: str) -> Iterator[tuple[str, Build]]:
    """Yield name and maker of each staged picture of a state of the history; the maker returns what to grab."""
    if state == "empty":
        yield "host_add", _dialog(lambda window: HostDialog(window.fleet, None, window.shell))
        return
    yield "host_overview", _host_tab("lab-0", "overview")
    yield "host_check", _host_tab("lab-0", "check")
    yield "host_runtime", _host_tab("lab-0", "runtime")
    yield "host_queue", _host_tab("lab-0", "queue")
    yield "host_unreachable", _host_tab("lab-4", "overview")
    yield "run_nodes", _run_tab("board_of_nodes")
    yield "run_nodes_curves", _run_tab("board")
    yield "run_nodes_log", _run_tab("log")
    yield "run_sweep", _sweep("sweep of widths", {})
    for tab in ("overview", "board", "stability", "profile", "artifacts"):
        yield f"training_{tab}", _training(tab)
    if state == "full":
        many: dict[str, FormValue] = {"parallel.processes": 4096, "parallel.tensor": 8, "parallel.pipeline": 4}
        yield "wizard_layout", _settings(many, layout="zero3")
        yield "wizard_hosts", _where({"launch.hosts": [f"lab-{n}" for n in range(16)]})
    if state == "normal":
        yield "run_sweep_first", _sweep("sweep just begun", {})
        yield "run_sweep_ranges", _sweep("sweep of widths", {0: (0.4, 0.8), 2: (0.1, 0.6)})
        yield "host_new_check", _host_tab("lab-1", "check")
        yield "host_installing", _installing
        yield "run_retry", _retry
        yield "wizard_settings", _settings({})
        yield "wizard_layout", _settings({}, layout="3d")
        yield "wizard_local", _where({})
        yield "wizard_hosts", _where({"launch.hosts": ["lab-0", "lab-3"]})
        yield "wizard_slurm", _where({"launch.slurm.cluster": "lab-2"})
        yield "wizard_kubernetes", _where({"launch.kubernetes.context": "prod-eu"})
        yield "wizard_review", _review
        yield "question_key", _dialog(_unknown_key)
        yield "question_secret", _dialog(_passphrase)
        yield "host_runtime_dialog", _dialog(_runtime)
