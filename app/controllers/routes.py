"""Where the user wants to go, as a record; the shell listens and opens the page.

Pages and controllers ask ``Router.go`` for another page and never know each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from core.contracts.forms import FormValue
from core.contracts.ids import RunId

HOME = "home"
TRAIN = "train"
RUNS = "runs"
RUN = "run"
HOSTS = "hosts"
SETTINGS = "settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A page and what to show on it.

    Attributes:
        page: Key of the page, one of the constants of this module.
        run_id: Run to open (``run``), or to clone (``train``).
        start_from: Folder of a checkpoint that the cloned run is to start from.
        group: Group of kinds (``train``, ``compress``, ``benchmark``) that the wizard offers first.
        kind: Kind of run to prefill the wizard with.
        values: Form values to prefill the wizard with.
        toml: A spec to prefill the wizard with.
        text: Search text for the run table.
    """

    page: str
    run_id: RunId | None = None
    start_from: str | None = None
    group: str | None = None
    kind: str | None = None
    values: dict[str, FormValue] | None = None
    toml: str | None = None
    text: str | None = None


class Router(QObject):
    """Carries requests to go somewhere.

    Signals:
        requested: A ``Route``.
    """

    requested = Signal(object)

    def go(self, route: Route) -> None:
        """Ask the shell to open a page. UI thread."""
        self.requested.emit(route)

    def open_run(self, run_id: RunId) -> None:
        """Ask the shell to open a run's page."""
        self.go(Route(page=RUN, run_id=run_id))
