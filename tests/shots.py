"""Takes a screenshot of every page: light and dark, with an empty, a normal and a far too full history.

``python -m tests.shots [--out shots] [--only normal] [--pages home,runs]``. The history is made of real run directories;
the window is the real one, off screen.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from PySide6.QtCore import QEventLoop, QTimer
from PySide6.QtWidgets import QApplication, QWidget

from app.__main__ import Window, make_application
from app.controllers.notices import notify
from app.controllers.routes import HOME, HOSTS, RUN, RUNS, SETTINGS, TRAIN, Route
from app.views.theme import apply_theme
from core.contracts.ids import RunId
from core.contracts.notices import Severity
from core.contracts.runs import RunQuery
from core.contracts.settings import Settings
from core.contracts.states import RunState
from tests.helpers import fleet_scenes
from tests.helpers.builders import build_history, build_run, series
from tests.helpers.spread_runs import build_spread_run
from tests.helpers.staged_shots import stages
from tests.helpers.sweep_runs import build_sweep_run, sweep_report
from tests.helpers.training_runs import build_training_run

SIZE = (1360, 860)
STATES = ("empty", "normal", "full")
HOSTS_OF = {"empty": 0, "normal": 6, "full": fleet_scenes.MANY}
MANY_RUNS = 10_000


def wait_until(done: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    """Run the event loop until a condition holds."""
    end = time.monotonic() + timeout_s
    while not done() and time.monotonic() < end:
        loop = QEventLoop()
        QTimer.singleShot(20, loop.quit)
        loop.exec()
    return done()


def settle(seconds: float) -> None:
    """Run the event loop for a while, so that background reads arrive."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, seconds + 1)


def fill(home: Path, state: str) -> None:
    """Make the history of a state."""
    now = time.time()
    if state == "empty":
        return
    build_run(home, name="digits baseline", created=now - 7200, number=1, tags=("baseline",), steps=400)
    build_run(home, name="digits, wider net", created=now - 5400, number=2, tags=("ablation",), steps=900, seed=3)
    build_run(home, name="tiny language model", kind="train.language", created=now - 4000, number=3, steps=600, seed=5)
    build_run(home, name="digits, batch 4096", created=now - 3000, number=4, state=RunState.FAILED, steps=40)
    build_run(home, name="overnight sweep 12", created=now - 90_000, number=5, state=RunState.LOST, steps=80)
    build_run(home, name="digits to 8 bits", kind="compress.int8", created=now - 2400, number=6, steps=20, seed=9)
    build_run(home, name="river forecast", created=now - 1500, number=7, state=RunState.STOPPED, steps=120, seed=2)
    build_run(home, name="digits, cosine schedule", created=now - 240, number=8, state=RunState.RUNNING, steps=4000)
    build_run(
        home, name="tiny language model, longer", created=now - 60, number=9, state=RunState.RUNNING, steps=900, seed=8
    )
    few = {"events": 24, "operators": 60, "ranks": 4, "texts": 5}
    many = {"events": 5000, "operators": 2000, "ranks": 16, "texts": 60, "steps": 20_000}
    build_training_run(home, created=now - 6000, number=60, **(many if state == "full" else few))
    trials = 500 if state == "full" else 24
    build_sweep_run(
        home,
        sweep_report(trials, running=2),
        name="sweep of widths",
        created=now - 9000,
        number=50,
        state=RunState.RUNNING,
    )
    if state == "normal":
        build_sweep_run(home, sweep_report(1), name="sweep just begun", created=now - 9100, number=51)
        build_spread_run(home, created=now - 5000, number=40, state=RunState.FAILED, silent=(1,), steps=200)
    if state == "full":
        build_spread_run(home, created=now - 100, number=40, name="digits on 16 hosts", nodes=16, ranks=8, steps=200)
        long_name = "a run whose name somebody generated from every parameter it has: " + "lr=0.0003 batch=128 " * 12
        metrics = {f"group{n % 12}/metric-{n}": series(f"loss{n}", 3000, n) for n in range(60)}
        build_run(
            home, name=long_name, created=now - 30, number=10, state=RunState.RUNNING, steps=3000, metrics=metrics
        )
        for number in range(11, 31):
            build_run(
                home, name=f"sweep {number}", created=now - number, number=number, state=RunState.RUNNING, steps=200
            )
        build_history(home, runs=MANY_RUNS)


def routes(window: Window) -> Iterator[tuple[str, Route]]:
    """Yield every page to take, with what to open on it."""
    yield HOME, Route(page=HOME)
    yield TRAIN, Route(page=TRAIN)
    yield RUNS, Route(page=RUNS)
    page = window.services.workspace.runs(RunQuery(sort="created", limit=5))
    for name, row in (("run_live", 0), ("run_ended", 3)):
        if len(page.rows) > row:
            yield name, Route(page=RUN, run_id=RunId(page.rows[row].run_id))
    yield HOSTS, Route(page=HOSTS)
    yield SETTINGS, Route(page=SETTINGS)


def grab(app: QApplication, shown: QWidget, path: Path) -> None:
    """Save a picture of a widget in both themes."""
    for mode in ("light", "dark"):
        apply_theme(app, mode)
        settle(0.2)
        shown.grab().save(f"{path}-{mode}.png")


def take(window: Window, out: Path, label: str, pages: set[str]) -> None:
    """Take the pages of one state in both themes."""
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    for name, route in routes(window):
        if pages and name not in pages:
            continue
        window.services.router.go(route)
        wait_until(lambda: window.shell.stack.current_key() == route.page)  # noqa: B023 - called at once
        settle(4.0 if name == HOSTS else 2.0)
        grab(app, window.shell, out / f"{label}-{name}")
    for name, build in stages(label):
        if pages and name not in pages:
            continue
        shown = build(window)
        settle(1.0)
        grab(app, shown, out / f"{label}-{name}")
        if shown is not window.shell:
            shown.close()
    if not pages or "palette" in pages:
        window.shell.palette_view.open()
        settle(0.8)
        window.shell.grab().save(str(out / f"{label}-palette-dark.png"))
        window.shell.palette_view.close_palette()
        notify(
            Severity.ERROR,
            "digits, batch 4096 failed: The device ran out of memory.",
            "Halve the batch size.",
            details="x",
        )
        notify(Severity.SUCCESS, "digits baseline finished in 2 min 4 s.", "test/accuracy 0.9731")
        settle(0.5)
        window.shell.grab().save(str(out / f"{label}-toasts-dark.png"))


def shoot(state: str, out: Path, pages: set[str]) -> None:
    """Take all pages over the history of one state."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-shots-") as folder:
        home = Path(folder)
        fill(home, state)
        window = Window(home, Settings(theme="light"))
        window.shell.resize(*SIZE)
        loaded: list[object] = []
        window.home_controller.loaded.connect(loaded.append)
        window.show()
        wait_until(lambda: bool(loaded), 120)
        settle(4.0)
        fleet_scenes.show(window, HOSTS_OF[state])
        settle(1.0)
        take(window, out, state, pages)
        window.close()


def main() -> None:
    """Take the screenshots asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("shots"))
    parser.add_argument("--only", choices=STATES, default=None)
    parser.add_argument("--pages", default="")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    app = make_application()
    apply_theme(app, "light")
    pages = {name for name in options.pages.split(",") if name}
    for state in (options.only,) if options.only else STATES:
        shoot(state, options.out, pages)
    print(f"{len(list(options.out.glob('*.png')))} screenshots in {options.out.resolve()}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
