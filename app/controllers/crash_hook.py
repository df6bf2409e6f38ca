"""The net under everything: an exception that nobody caught becomes a crash report on disk and a notice.

Exceptions in slots, timers and threads all arrive here; the program lives on. Writing and wording are the notice bridge's.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
from pathlib import Path
from types import TracebackType

from app.controllers.notices import bridge


def install_crash_hook(crash_dir: Path) -> None:
    """Catch from now on; a crash of the interpreter itself leaves its stacks in ``fatal.txt``."""
    bridge().set_crash_dir(crash_dir)
    sys.excepthook = _on_uncaught
    threading.excepthook = _on_uncaught_in_thread
    try:
        crash_dir.mkdir(parents=True, exist_ok=True)
        faulthandler.enable((crash_dir / "fatal.txt").open("a", encoding="utf-8"))
    except OSError:
        # The folder cannot be written: opening the workspace will say so to the user, with the remedy.
        faulthandler.enable()


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    bridge().post(bridge().notice_of(error))


def _on_uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None and not issubclass(caught.exc_type, SystemExit):
        bridge().post(bridge().notice_of(caught.exc_value))
