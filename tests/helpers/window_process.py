"""The real window in a process of its own, and the hands of a test on it (``tests.helpers.window_driver``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.waiting import wait_for


class WindowProcess:
    """A running application and the hands on it."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.helpers.window_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
            },
        )

    def ask(self, do: str, **fields: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the window died: {Path(self._log.name).read_text()[-2000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def click(self, name: str) -> None:
        wait_for(lambda: self.ask("look", name=name).get("enabled"), f"{name} to be there and enabled")
        self.ask("click", name=name)

    def type(self, name: str, text: str) -> None:
        wait_for(lambda: self.ask("look", name=name)["found"], f"{name} to be there")
        self.ask("type", name=name, text=text)

    def choose(self, name: str, text: str) -> None:
        """Pick the entry of a combo box or list that has a text; waits until there is one."""
        wait_for(lambda: self.ask("choose", name=name, text=text)["found"], f"{text!r} in {name}")

    def tab(self, name: str, title: str) -> None:
        wait_for(lambda: self.ask("look", name=name)["found"], f"{name} to be there")
        self.ask("tab", name=name, title=title)

    def shows(self, *words: str) -> bool:
        texts = "\n".join(self.ask("texts")["texts"])
        return all(word in texts for word in words)

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self._log.close()


@contextmanager
def opened_windows(folder: Path) -> Generator[Callable[[], WindowProcess]]:
    """Yield what opens windows; those still open are killed at the end."""
    opened: list[WindowProcess] = []

    def open_one() -> WindowProcess:
        opened.append(WindowProcess(folder / f"window-{len(opened)}.log"))
        return opened[-1]

    try:
        yield open_one
    finally:
        for window in opened:
            if window.process.returncode is None:
                window.kill()
