"""Asks the ranks of trainings for profiles, and reads what they have recorded. Blocks on files and hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import NoWatcher
from core.contracts.ids import RunId
from core.contracts.profiles import MOST_STEPS, SUMMARY_KIND, ProfileReport
from core.contracts.runs import ArtifactRecord
from core.fleet.fetch import fetch
from core.fleet.fleet import Fleet
from core.jobs.launcher import Launcher
from core.plugins.decode import read_spec
from core.plugins.registry import registry
from core.runlog.layout import RunLayout
from core.runlog.placements import is_elsewhere, read_placement
from core.settings.home import Home


class Profiles:
    """The profiles of the runs of one home. Thread-safe."""

    def __init__(self, home: Home, fleet: Fleet, launcher: Launcher) -> None:
        """Prepare; looks at nothing yet."""
        self._home = home
        self._fleet = fleet
        self._launcher = launcher

    def request(self, run_id: RunId, steps: int, ranks: tuple[int, ...]) -> None:
        """Ask ranks of a training that goes on for a profile of their next steps.

        Raises:
            UserError: There is no such run, it has ended, its kind records none, or has no such rank on its first node.
            EnvironmentProblem: The request cannot be written, or the host does not answer.
        """
        run_dir = self._home.run_dir(run_id)
        if is_elsewhere(read_placement(run_dir)):
            _check_request(run_dir, steps, ranks)
            self._fleet.runs.profile(run_id, steps, ranks)
            return
        if RunLayout(run_dir).spec.exists():
            _check_request(run_dir, steps, ranks)
        self._launcher.profile(run_id, steps, ranks)

    def newest(self, run_id: RunId, artifacts: Sequence[ArtifactRecord], rank: int | None) -> ProfileReport | None:
        """Return the newest profile among a run's artifacts, of one rank if it is given; None when there is none.

        One of a run elsewhere is fetched with its trace when it is not here yet.

        Raises:
            EnvironmentProblem: It is damaged, or the host that has it does not answer.
        """
        found = _newest_summary(artifacts, rank)
        if found is None:
            return None
        path, run_dir = Path(found.path), self._home.run_dir(run_id)
        if not path.is_file() and is_elsewhere(read_placement(run_dir)):
            fetch(self._fleet.pool, run_dir, path.parent.relative_to(run_dir).as_posix(), NoWatcher())
        return read_profile(path)


def _check_request(run_dir: Path, steps: int, ranks: Sequence[int]) -> None:
    """Look at a request for a profile.

    Raises:
        UserError: The run's kind records none, it has no such rank on its first node, or the number of steps is unfit.
    """
    spec = read_spec(RunLayout(run_dir).spec)
    kind = registry().get(str(spec.__struct_config__.tag))
    if kind.rank_run is None:
        raise UserError(
            f"A run of the kind {spec.__struct_config__.tag} records no profile.",
            "Profiles are of trainings with the built-in engine.",
        )
    if not 1 <= steps <= MOST_STEPS:
        raise UserError(f"A profile covers 1 to {MOST_STEPS} steps, not {steps}.", "3 steps show most.")
    placement = read_placement(run_dir)
    count = kind.ranks(spec) if placement is None else placement.head.processes
    unknown = [rank for rank in ranks if not 0 <= rank < count]
    if unknown or not ranks:
        named = f"rank {unknown[0]}" if unknown else "no rank"
        raise UserError(
            f"A profile was asked of {named}; the run's first node has the ranks 0 to {count - 1}.",
            "Name some of these.",
        )


def _newest_summary(artifacts: Sequence[ArtifactRecord], rank: int | None) -> ArtifactRecord | None:
    """Return the newest report among a run's artifacts, of one rank if it is given; None when there is none."""
    found = [
        one for one in artifacts if one.kind == SUMMARY_KIND and (rank is None or one.meta.get("rank") == float(rank))
    ]
    return max(
        enumerate(found), key=lambda item: (float(item[1].meta.get("recorded_at") or 0.0), item[0]), default=(0, None)
    )[1]


def read_profile(path: Path) -> ProfileReport:
    """Return a report with the path of its trace made absolute.

    Raises:
        EnvironmentProblem: It cannot be read, or is damaged.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=ProfileReport)
    except OSError as error:
        raise EnvironmentProblem(f"{str(path)!r} cannot be read: {error.strerror}.", "Record a new profile.") from error
    except msgspec.DecodeError as error:
        raise EnvironmentProblem(f"{str(path)!r} is damaged: {error}.", "Record a new profile.") from error
    trace = path.parent / report.trace_path
    return msgspec.structs.replace(report, trace_path=str(trace) if report.trace_path and trace.is_file() else "")
