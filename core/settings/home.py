"""The home folder: runs, their index, settings and the bin. ``PILOTHOUSE_HOME`` moves all of it.

Opening a home checks that it can be used and that no newer Pilothouse has changed its form; nothing in a newer home
is touched.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.contracts.ids import RunId

HOME_VARIABLE = "PILOTHOUSE_HOME"
HOME_VERSION = 1


def default_home() -> Path:
    """Return ``$PILOTHOUSE_HOME``, or the user's data folder for Pilothouse."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("pilothouse", appauthor=False)


class Home:
    """Paths inside one home folder. Making the object touches nothing; ``prepare`` does."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def runs_dir(self) -> Path:
        """Folder of run directories."""
        return self.path / "runs"

    @property
    def bin_dir(self) -> Path:
        """Folder of deleted run directories."""
        return self.path / "bin"

    @property
    def database(self) -> Path:
        """The index over the runs."""
        return self.path / "history.sqlite"

    @property
    def settings_file(self) -> Path:
        """What the user set, as TOML."""
        return self.path / "settings.toml"

    @property
    def hosts_file(self) -> Path:
        """The hosts that the user added, as TOML."""
        return self.path / "hosts.toml"

    @property
    def known_hosts(self) -> Path:
        """Keys of hosts that the user trusted here, in OpenSSH's form; read beside the user's own file."""
        return self.path / "known_hosts"

    @property
    def secrets_file(self) -> Path:
        """Encrypted secrets, used only where there is no keyring."""
        return self.path / "secrets.json"

    @property
    def queue_dir(self) -> Path:
        """Tickets of runs that wait for devices of this machine, or hold them."""
        return self.path / "queue"

    @property
    def copies_dir(self) -> Path:
        """Data copied here for runs that another machine launched, by content."""
        return self.path / "data"

    @property
    def hashes_file(self) -> Path:
        """Hashes of large files that were copied to hosts, so that they need not be read again."""
        return self.path / "hashes.json"

    @property
    def version_file(self) -> Path:
        """Marks the form of this home."""
        return self.path / "home.json"

    def run_dir(self, run_id: RunId) -> Path:
        """Return the directory of a run."""
        return self.runs_dir / run_id

    def prepare(self) -> None:
        """Make the folders, or explain why this home cannot be used.

        Raises:
            EnvironmentProblem: Not a folder, not writable, or made by a newer Pilothouse.
        """
        try:
            self.runs_dir.mkdir(parents=True, exist_ok=True)
            self.bin_dir.mkdir(exist_ok=True)
            self._check_version()
        except OSError as error:
            raise EnvironmentProblem(
                f"The folder {str(self.path)!r} cannot be used: {error.strerror or error}.",
                f"Make it writable, or set {HOME_VARIABLE} to another folder.",
            ) from error
        if not os.access(self.runs_dir, os.W_OK | os.X_OK):
            raise EnvironmentProblem(
                f"The folder {str(self.runs_dir)!r} cannot be written to.",
                f"Give yourself permission to write there, or set {HOME_VARIABLE} to another folder.",
            )

    def _check_version(self) -> None:
        try:
            found = int(json.loads(self.version_file.read_text(encoding="utf-8"))["version"])
        except FileNotFoundError:
            # A name of its own: several may make the home at once.
            partial = self.version_file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
            partial.write_text(json.dumps({"version": HOME_VERSION}), encoding="utf-8")
            partial.replace(self.version_file)
            return
        except (ValueError, KeyError, TypeError):
            found = HOME_VERSION
        if found > HOME_VERSION:
            raise EnvironmentProblem(
                f"The folder {str(self.path)!r} belongs to a newer Pilothouse (form {found}; this one knows {HOME_VERSION}).",
                f"Upgrade Pilothouse, or set {HOME_VARIABLE} to another folder. Nothing was changed.",
            )
