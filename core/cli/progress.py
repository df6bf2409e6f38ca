"""One line of progress on a terminal: a bar, the stage and the time left; silent where there is no terminal."""

from __future__ import annotations

import shutil
import sys
from types import TracebackType

from core.contracts.runs import RunSummary

_BAR_CELLS = 24


def human_duration(seconds: float) -> str:
    """Return seconds as people say them, such as ``1 min 20 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def progress_text(run: RunSummary) -> str:
    """Return a run's progress as one line."""
    done = run.progress or 0.0
    filled = round(done * _BAR_CELLS)
    bar = "#" * filled + "-" * (_BAR_CELLS - filled)
    left = f", about {human_duration(run.eta_s)} left" if run.eta_s is not None and done < 1 else ""
    return f"[{bar}] {done:4.0%} {run.stage or run.state.value}{left}"


class ProgressLine:
    """Shows summaries on one line of stderr, rewritten in place; a context manager that ends the line."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._in_place = sys.stderr.isatty()
        self._last = ""

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._enabled and self._in_place and self._last:
            sys.stderr.write("\n")

    def show(self, run: RunSummary) -> None:
        """Show a run's progress; off a terminal only when the stage changes."""
        if not self._enabled:
            return
        text = progress_text(run)
        if self._in_place:
            width = shutil.get_terminal_size().columns
            sys.stderr.write("\r" + text[: width - 1].ljust(width - 1))
            self._last = text
        elif run.stage != self._last:
            sys.stderr.write(text + "\n")
            self._last = run.stage
        sys.stderr.flush()
