"""Every command of the window in one list, from which menus, shortcuts, the tray and the command palette are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One command.

    Attributes:
        key: Stable name, such as ``go.runs``.
        title: In the imperative, as the palette shows it.
        icon: Name of its icon.
        run: Does it. UI thread.
        shortcut: In Qt's portable form, such as ``Ctrl+1``; empty for none.
        words: More words by which the palette finds it.
        group: Heading in the palette.
    """

    key: str
    title: str
    icon: str
    run: Callable[[], object]
    shortcut: str = ""
    words: str = ""
    group: str = "Actions"


class ActionList:
    """The commands there are, in the order of their registration."""

    def __init__(self) -> None:
        self._actions: dict[str, Action] = {}

    def add(self, action: Action) -> None:
        """Add a command; a key may be used once."""
        if action.key in self._actions:
            raise ValueError(f"There is already an action called {action.key!r}.")
        self._actions[action.key] = action

    def get(self, key: str) -> Action:
        """Return a command by its key."""
        return self._actions[key]

    def all(self) -> tuple[Action, ...]:
        """Return all commands."""
        return tuple(self._actions.values())

    def with_shortcut(self) -> tuple[Action, ...]:
        """Return the commands that have a shortcut."""
        return tuple(action for action in self._actions.values() if action.shortcut)
