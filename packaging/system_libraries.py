"""Finds the shared libraries that Qt needs and this machine lacks, and installs their Debian packages.

Asks the dynamic linker (``ldd``) about the files Qt will really load, maps each missing name to a package, and calls
``apt-get`` where that is allowed; otherwise it says the one command. Standard library only; Linux only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# What a start of the window loads: the binding's modules and the two platform plugins (with and without a display).
QT_FILES = (
    "QtCore.*so",
    "QtGui.*so",
    "QtWidgets.*so",
    "QtNetwork.*so",
    "QtSvg.*so",
    "Qt/plugins/platforms/libqxcb.so",
    "Qt/plugins/platforms/libqoffscreen.so",
    "Qt/plugins/iconengines/libqsvgicon.so",
)

PACKAGE_OF = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLX.so.0": "libglx0",
    "libOpenGL.so.0": "libopengl0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libX11.so.6": "libx11-6",
    "libbrotlidec.so.1": "libbrotli1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-glx.so.0": "libxcb-glx0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-render.so.0": "libxcb-render0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-util.so.1": "libxcb-util1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxcb.so.1": "libxcb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libz.so.1": "zlib1g",
}

# Programs that some tests need: a C compiler for the stand-in GPU driver library, a virtual display, ssh-keygen and the
# client's configuration, network namespaces, and a second POSIX shell.
TEST_PROGRAMS = {
    "gcc": "gcc libc6-dev",
    "Xvfb": "xvfb",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "busybox": "busybox",
}
# Services that tests start instances of their own of. The packages would start and enable theirs, so they are
# installed for root only (who most likely is in a container, and whom the tests need for namespaces), and kept stopped.
TEST_SERVICES = {"sshd": "openssh-server", "munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm"}
_POLICY = Path("/usr/sbin/policy-rc.d")
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

_MISSING = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)


class MissingLibraries(Exception):
    """Shared libraries are missing and could not be installed; the message holds the remedy."""


def missing_sonames(files: Iterable[Path]) -> list[str]:
    """Return the names of shared libraries that the dynamic linker cannot find for these files, sorted."""
    found: set[str] = set()
    for file in files:
        answer = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False)
        found.update(_MISSING.findall(answer.stdout))
    return sorted(found)


def packages_for(sonames: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the Debian packages that hold these libraries, and the names that no known package holds."""
    packages = sorted({PACKAGE_OF[name] for name in sonames if name in PACKAGE_OF})
    return packages, [name for name in sonames if name not in PACKAGE_OF]


def qt_files(site_packages: Path) -> list[Path]:
    """Return the files of the installed binding that a start of the window loads."""
    binding = site_packages / "PySide6"
    return [file for pattern in QT_FILES for file in sorted(binding.glob(pattern))]


def apt_command() -> list[str] | None:
    """Return the head of a command that may install packages without a question, or None."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n", "apt-get"]
    return None


def install(packages: Sequence[str]) -> bool:
    """Install Debian packages; return False where that is not allowed or fails (apt-get has then said why)."""
    command = apt_command()
    if command is None:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(f"Installing system packages: {' '.join(packages)}", flush=True)
    subprocess.run([*command, "update", "-qq"], env=environment, check=False)
    arguments = ["install", "-y", "-qq", "--no-install-recommends", *packages]
    return subprocess.run([*command, *arguments], env=environment, check=False).returncode == 0


def _command_for(packages: Sequence[str]) -> str:
    return f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {' '.join(packages)}"


def ensure_qt_libraries(site_packages: Path) -> None:
    """Make sure that Qt can load; install what is missing where that is allowed.

    Raises:
        MissingLibraries: With one sentence that holds the command to run.
    """
    if sys.platform != "linux" or shutil.which("ldd") is None:
        return
    files = qt_files(site_packages)
    sonames = missing_sonames(files)
    if not sonames:
        return
    packages, unknown = packages_for(sonames)
    if packages and install(packages):
        packages, unknown = packages_for(missing_sonames(files))
        if not packages and not unknown:
            return
    if unknown or shutil.which("apt-get") is None:
        raise MissingLibraries(
            f"The window needs these system libraries: {', '.join(sonames)}. Install the packages of your system that "
            f"hold them (on Debian: {' '.join(packages) or 'search with apt-file'}), then run the same command again."
        )
    raise MissingLibraries(
        f"The window needs {len(packages)} system packages. Run this, then the same command again:\n"
        f"  {_command_for(packages)}"
    )


def missing_packages(programs: Mapping[str, str]) -> list[str]:
    """Return the packages of those programs that are not there, each once."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}"
    missing = [packages for program, packages in programs.items() if shutil.which(program, path=path) is None]
    return list(dict.fromkeys(" ".join(missing).split()))


@contextmanager
def services_kept_stopped(policy: Path = _POLICY) -> Iterator[None]:
    """Let Debian's packages start no service while they are installed; a policy that is there already stays."""
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def ensure_test_programs() -> None:
    """Install the programs that some tests need, or say which tests will be skipped and how to have them."""
    if sys.platform != "linux":
        return
    programs, services = missing_packages(TEST_PROGRAMS), missing_packages(TEST_SERVICES)
    if services and os.geteuid() == 0 and apt_command() is not None:
        with services_kept_stopped():
            if install([*programs, *services]):
                print("The services among them were not started; the tests start their own.", flush=True)
                return
    elif programs and install(programs):
        programs = []
    wanted = [*programs, *services]
    if wanted:
        print(f"Some tests will be skipped with a reason. To have them all: {_command_for(wanted)}", flush=True)
