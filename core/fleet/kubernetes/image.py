"""What a container image needs of us: a folder to build one from, with the worker package that matches this program.

Builds no image itself: that is for ``docker build``, ``podman build`` or a pipeline.
"""

from __future__ import annotations

from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.fleet.worker_wheel import build_worker_wheel

DEFAULT_BASE = "python:3.12-slim"
CONTAINERFILE = "Containerfile"
_TEXT = """\
# An image for runs of Pilothouse {version}. Any base with Python 3.11 or newer will do; the worker package must be of the
# same version as the program that launches. Add what your own code needs.
FROM {base}
COPY {wheel} /tmp/
RUN python -m pip install --no-cache-dir "/tmp/{wheel}[{extras}]" && rm "/tmp/{wheel}"
"""


def write_build_folder(folder: Path, *, base: str = DEFAULT_BASE, extras: str = "train") -> Path:
    """Write the worker package's wheel and a Containerfile that installs it; return the Containerfile.

    Args:
        folder: Made when missing; files of these names in it are replaced.
        base: Image to start from.
        extras: Which further packages are installed: ``torch``, ``train``, ``infer`` or ``compress``.

    Raises:
        EnvironmentProblem: The folder cannot be written.
    """
    try:
        wheel = build_worker_wheel(folder)
        target = folder / CONTAINERFILE
        version = wheel.name.split("-")[1]
        target.write_text(
            _TEXT.format(base=base, wheel=wheel.name, extras=extras, version=version), encoding="utf-8", newline="\n"
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"The folder {str(folder)!r} cannot be written: {error.strerror or error}.", "Choose another folder."
        ) from error
    return target
