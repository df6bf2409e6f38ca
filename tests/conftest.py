"""What every test gets: a home of its own, no display, one thread for numeric libraries, and a check for leaks.

Set at import, before any library reads them: the offscreen platform and the thread counts. Per test: folders of the
user moved into ``tmp_path``. For ``tests/gui`` also: threads, Qt threads and Qt timers that outlive a test fail it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["ACCELERATE_DISABLE_RICH"] = "1"

FOLDER_MARKS = ("unit", "contract", "gui", "e2e")
TESTS = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by its folder; put those that may take long first, so that no process ends alone with one."""
    for item in items:
        try:
            folder = item.path.relative_to(TESTS).parts[0]
        except ValueError:
            continue
        if folder in FOLDER_MARKS:
            item.add_marker(folder)
    items.sort(key=_allowed_s, reverse=True)


def _allowed_s(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0


@pytest.fixture(autouse=True)
def pilothouse_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the test away from the user's own home, settings, caches and service keys; return the home it may use."""
    home = tmp_path / "home"
    monkeypatch.setenv("PILOTHOUSE_HOME", str(home))
    for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    for variable in ("PILOTHOUSE_RUN", "PILOTHOUSE_EVENTS", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    return home


@pytest.fixture(autouse=True)
def forget_kinds() -> Iterator[None]:
    """Forget the kinds of run that a test's own plug-in added; the next test scans anew."""
    yield
    module = sys.modules.get("core.plugins.registry")
    if module is not None:
        module.registry.cache_clear()


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a GUI test that leaves a thread or a running timer behind. Requested first, so it looks last."""
    if request.node.get_closest_marker("gui") is None:
        yield
        return
    from tests.helpers.leaks import LeakCheck, drop_old_notices

    drop_old_notices()
    check = LeakCheck(monkeypatch)
    yield
    leaks = check.leaks()
    if leaks:
        pytest.fail("left behind by this test:\n  " + "\n  ".join(leaks), pytrace=False)
