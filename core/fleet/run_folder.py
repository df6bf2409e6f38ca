"""The run directory here of a run on other hosts: made whole before anything is started there, and renewed by a resume.

It is the mirror: what the hosts write comes into it by ``core.fleet.mirror``. Nothing here asks a host.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import Placement
from core.contracts.specs import RunSpec
from core.fleet.copying import Copy
from core.jobs.records import ExitRecord, read_record, write_record
from core.plugins.decode import encode_spec
from core.runlog.layout import RunLayout
from core.runlog.placements import HERE, earlier_placements, read_placement
from core.settings.home import Home

CODE = "code"


class RunFolder:
    """One run's directory here."""

    def __init__(self, home: Home, run_id: str, path: Path | None = None) -> None:
        self._home = home
        self.run_id = run_id
        self.path = path or home.runs_dir / run_id
        self.layout = RunLayout(self.path)
        self._links_before: dict[str, LinkRecord] = {}

    def make(self, spec: RunSpec, placement: Placement, code: Copy | None) -> None:
        """Make it, with a snapshot of the code, under a temporary name first.

        Raises:
            EnvironmentProblem: No space, no permission; nothing is left.
        """
        partial = self.path.with_name(f".{self.run_id}.partial")
        layout = RunLayout(partial)
        try:
            layout.control.mkdir(parents=True)
            if code is not None:
                snapshot(code, partial / CODE)
            layout.spec.write_text(encode_spec(spec), encoding="utf-8")
            write_record(layout.placement, placement)
            partial.rename(self.path)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise self.cannot_write(error) from error

    def cannot_write(self, error: OSError) -> EnvironmentProblem:
        """Return the sentence for a directory that cannot be written."""
        remedy = "Free space there." if error.errno == errno.ENOSPC else "Check the folder's permissions."
        return EnvironmentProblem(
            f"The run cannot be written to {str(self._home.runs_dir)!r}: {error.strerror or error}.", remedy
        )

    def remove(self) -> None:
        """Take it away again, after a launch that was undone on all hosts."""
        shutil.rmtree(self.path, ignore_errors=True)

    def placement(self) -> Placement:
        """Return where the run is; EnvironmentProblem when its record is gone or damaged."""
        found = read_placement(self.path)
        if found is None:
            raise EnvironmentProblem(
                f"The record {str(self.layout.placement)!r} is missing or damaged.",
                "The run cannot be acted on from here any more; its hosts still have it.",
            )
        return found

    def node_roles(self) -> dict[str, tuple[str, bool]]:
        """Return every node name of all attempts, with its host and whether it was the head."""
        roles: dict[str, tuple[str, bool]] = {}
        for placement in (*earlier_placements(self.path), self.placement()):
            for number, placed in enumerate(placement.nodes):
                roles[placed.node] = (placed.host or "local", number == 0)
        return roles

    def begin_attempt(self, placement: Placement) -> None:
        """Put the records of the last attempt aside, and write where the next one is.

        Raises:
            EnvironmentProblem: They cannot be written.
        """
        before = self.placement()
        try:
            write_record(self.path / f"placement.attempt{before.attempt}.json", before)
            for placed in before.nodes:
                if placed.host not in HERE:  # what is here is put aside by the start itself
                    self._put_aside(placed.node)
            self.layout.stop_request.unlink(missing_ok=True)
            self.layout.pause_request.unlink(missing_ok=True)
            write_record(self.layout.placement, placement)
            os.utime(self.layout.spec)
        except OSError as error:
            raise self.cannot_write(error) from error

    def _put_aside(self, node: str) -> None:
        """Name a node's exit record by its attempt, as its host does, and forget what the host concluded of it."""
        record = read_record(self.layout.exit_record(node), ExitRecord)
        if record is not None:
            self.layout.exit_record(node).rename(self.path / f"exit.{node}.attempt{record.attempt}.json")
        link = read_record(self.layout.link(node), LinkRecord)
        if link is not None:
            self._links_before[node] = link
            write_record(self.layout.link(node), msgspec.structs.replace(link, is_complete=False, standing=None))

    def last_attempt(self) -> int:
        """Return the number of the latest attempt; a pause makes one, too."""
        records = [read_record(path, ExitRecord) for path in self.path.glob("exit.*.json")]
        return max([self.placement().attempt, *(record.attempt for record in records if record is not None)])

    def take_back_attempt(self, before: Placement) -> None:
        """Undo ``begin_attempt`` of this very object after a start that failed on some host."""
        for placed in before.nodes:
            aside = self._last_end(placed.node)
            if aside is not None and not self.layout.exit_record(placed.node).exists():
                shutil.copy(aside, self.layout.exit_record(placed.node))
        for node, link in self._links_before.items():
            write_record(self.layout.link(node), link)
        write_record(self.layout.placement, before)
        (self.path / f"placement.attempt{before.attempt}.json").unlink(missing_ok=True)

    def _last_end(self, node: str) -> Path | None:
        """Return a node's exit record of its last attempt, put aside."""
        found = {path: read_record(path, ExitRecord) for path in self.path.glob(f"exit.{node}.attempt*.json")}
        whole = {path: record.attempt for path, record in found.items() if record is not None}
        return max(whole, key=whole.__getitem__, default=None)


def snapshot(code: Copy, target: Path) -> None:
    """Copy what a manifest tells to a folder of this machine; OSError when it cannot be."""
    target.mkdir(parents=True)
    for file in code.manifest.files:
        place = target / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            place.symlink_to(file.link)
        elif file.is_folder:
            place.mkdir(exist_ok=True)
        else:
            shutil.copy(code.manifest.path_of(file), place)


def from_snapshot(code: Copy, run_dir: Path) -> Copy:
    """Return the same copy, read from the run's snapshot of the code instead of the code itself."""
    manifest = msgspec.structs.replace(code.manifest, here=str(run_dir / CODE))
    return Copy(manifest=manifest, there=code.there, is_shared=False, here=code.here)
