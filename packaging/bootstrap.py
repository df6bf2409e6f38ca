"""Makes, checks and repairs ``.venv``: the environment of the application (``run``) and of its tests (``test``).

Called by the Makefile with any Python 3; standard library only. Writes a stamp when all is well, so that the next
start costs nothing, and a mark while it works, so that an interrupted install is found and repaired. Every failure
that the user can do something about is one sentence with the remedy. It never touches runs or settings.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system_libraries import MissingLibraries, ensure_qt_libraries, ensure_test_programs

OLDEST_PYTHON = (3, 11)
NEWER_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
EXTRAS = {"run": "", "test": "[test,check]"}
# Measured: the environment takes 7.1 GB on Linux x86-64, and pip unpacks one wheel of 0.6 GB at a time beside it.
NEEDED_BYTES = 9 * 10**9

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WORKING_MARK = VENV / ".installing"
ROOT_RECORD = VENV / ".root"
INSTALL_LOG = VENV / "install.log"

PIP_FAILURES = (
    (r"No space left on device|Errno 28", "The disk is full. Free about 9 GB and run the same command again."),
    (
        r"NewConnectionError|ConnectTimeout|ReadTimeout|NameResolution|name resolution|Network is unreachable|"
        r"ProxyError|Connection (?:refused|reset)|Max retries exceeded|SSLError",
        "The package index cannot be reached. Check the network or proxy (pip reads HTTPS_PROXY and PIP_INDEX_URL), "
        "then run the same command again: it goes on where it stopped.",
    ),
    (
        r"No matching distribution|Could not find a version",
        "The package index has no build of a package for this system. Check the network and the index (PIP_INDEX_URL), "
        "and use Python 3.11 to 3.14 on 64-bit Linux: make run PYTHON=python3.12",
    ),
    (r"Permission denied", "The folder cannot be written. Make it yours (chown) or copy it elsewhere, then try again."),
)


class SetupProblem(Exception):
    """The environment cannot be made; the message is a sentence with the remedy."""


def venv_python() -> Path:
    """Return the environment's interpreter, whether it is there or not."""
    return VENV / "bin" / "python"


def stamp(profile: str) -> Path:
    """Return the file that says this profile is installed."""
    return VENV / f".stamp-{profile}"


def fingerprint() -> str:
    """Return a hash of all that decides what the environment holds."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", "packaging/bootstrap.py", "packaging/system_libraries.py"):
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{ROOT}|{sys.version_info[:3]}".encode())
    return digest.hexdigest()


def is_current(profile: str) -> bool:
    """Tell whether the environment was finished for exactly this state of the project."""
    mark = stamp(profile)
    return mark.is_file() and mark.read_text() == fingerprint() and not WORKING_MARK.exists() and is_venv_usable()


def is_venv_usable() -> bool:
    """Tell whether the environment's interpreter starts, is of this version, was made in this folder and has pip."""
    if not ROOT_RECORD.is_file() or ROOT_RECORD.read_text() != str(ROOT):
        return False
    question = "import sys, pip; print(*sys.version_info[:3])"
    try:
        answer = subprocess.run([str(venv_python()), "-c", question], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return answer.stdout.split() == [str(part) for part in sys.version_info[:3]]


def use_new_enough_python() -> None:
    """Go on under a newer interpreter where this one is too old; SetupProblem where there is none."""
    if sys.version_info >= OLDEST_PYTHON:
        return
    for name in NEWER_PYTHONS:
        found = shutil.which(name)
        if found:
            os.execv(found, [found, *sys.argv])
    version = ".".join(str(part) for part in sys.version_info[:2])
    raise SetupProblem(
        f"Pilothouse needs Python 3.11 or newer; this is {version}. Install one (Debian 12 or Ubuntu 24.04: "
        "sudo apt-get install python3 python3-venv) or name it: make run PYTHON=/path/to/python3.12"
    )


def check_disk() -> None:
    """SetupProblem where the environment would not fit on the disk."""
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        raise SetupProblem(
            f"Setting up needs about {NEEDED_BYTES / 1e9:.0f} GB of disk and {free / 1e9:.1f} GB are free here. "
            "Free some space, or move this folder to a larger disk."
        )


def make_venv() -> None:
    """Make an empty environment in place of whatever is there."""
    check_disk()
    print(f"Setting up {VENV} (once; about 3 GB to download, several minutes)", flush=True)
    try:
        import ensurepip  # noqa: F401  # Debian ships it in a package of its own
    except ImportError:
        version = ".".join(str(part) for part in sys.version_info[:2])
        raise SetupProblem(
            f"This Python cannot make environments. Run: sudo apt-get install -y python{version}-venv"
        ) from None
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        lines = (made.stderr or made.stdout).strip().splitlines() or ["no reason given"]
        raise SetupProblem(f"The environment could not be made: {lines[-1]} Check that {ROOT} can be written.")
    ROOT_RECORD.write_text(str(ROOT))


def site_packages() -> Path:
    """Return the folder of the environment that holds the packages."""
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def is_whole(info: Path) -> bool:
    """Tell whether every file of an installed package is there in its recorded size."""
    record = info / "RECORD"
    if not record.is_file():
        return False
    with record.open(newline="", encoding="utf-8") as lines:
        for row in csv.reader(lines):
            path = info.parent / row[0]
            if path.suffix == ".pyc":
                continue
            if not path.exists() or (row[2] and path.stat().st_size != int(row[2])):
                return False
    return True


def forget_damaged_packages() -> list[str]:
    """Remove the records of half-installed packages, so that pip installs them again; return their names."""
    packages = site_packages()
    for leftover in packages.glob("~*"):
        shutil.rmtree(leftover, ignore_errors=True)
    damaged = [info for info in sorted(packages.glob("*.dist-info")) if not is_whole(info)]
    for info in damaged:
        shutil.rmtree(info)
    return [info.name[: -len(".dist-info")] for info in damaged]


def pip_environment() -> dict[str, str]:
    """Return this environment without what would keep pip from writing byte code or from using our folder."""
    unwanted = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def sentence_for(output: str) -> str:
    """Return what went wrong with pip, as one sentence with the remedy."""
    for pattern, sentence in PIP_FAILURES:
        if re.search(pattern, output):
            return sentence
    return f"pip could not install the packages; its last words are in {INSTALL_LOG}."


def pip_install(profile: str, *, is_long: bool) -> None:
    """Install the project (editable) and the pinned packages of the profile; tell of each where it takes long."""
    # Relative paths: pip would read brackets in an absolute one as a list of extras.
    wanted = ["-e", f".{EXTRAS[profile]}", "-c", "constraints.txt"]
    command = [str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check", *wanted]
    if not is_long:
        print(f"Bringing the packages in {VENV} up to date", flush=True)
        command.append("-q")
    with subprocess.Popen(command, cwd=ROOT, env=pip_environment(), stderr=subprocess.PIPE, text=True) as child:
        said: list[str] = []
        for line in child.stderr or ():
            said.append(line)
            sys.stderr.write(line)
    if child.returncode:
        INSTALL_LOG.write_text("".join(said))
        raise SetupProblem(sentence_for("".join(said)))


def compile_sources() -> None:
    """Write byte code for our own packages; pip has done so for the others."""
    command = [str(venv_python()), "-m", "compileall", "-q", "app", "core"]
    subprocess.run(command, cwd=ROOT, env=pip_environment(), check=False)


def set_up(profile: str) -> None:
    """Bring the environment to the profile, from whatever state it is in."""
    was_interrupted = WORKING_MARK.exists()
    is_new = not is_venv_usable()
    if is_new:
        make_venv()
    elif was_interrupted:
        names = forget_damaged_packages()
        print(f"Installing again: {', '.join(names) or 'what is missing'}", flush=True)
    WORKING_MARK.touch()
    pip_install(profile, is_long=is_new or was_interrupted)
    compile_sources()
    WORKING_MARK.unlink()
    ensure_qt_libraries(site_packages())
    if profile == "test":
        ensure_test_programs()
        stamp("run").write_text(fingerprint())
    stamp(profile).write_text(fingerprint())


@contextmanager
def folder_lock() -> Iterator[None]:
    """Let one set-up of this folder go on at a time; a second one waits for it."""
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def carry_out(wanted: str) -> None:
    """Do what was asked for, unless it is done already."""
    if wanted == "repair":
        if VENV.is_dir():
            WORKING_MARK.touch()
        set_up("test" if stamp("test").exists() else "run")
    elif is_current(wanted):
        stamp(wanted).touch()
    else:
        set_up(wanted)


def main(arguments: list[str]) -> int:
    """Set up ``run`` or ``test``, or ``repair`` what is installed; return the exit status."""
    wanted = arguments[0] if arguments else "run"
    if wanted not in {*EXTRAS, "repair"}:
        print("usage: bootstrap.py [run|test|repair]", file=sys.stderr)
        return 2
    try:
        use_new_enough_python()
        with folder_lock():
            carry_out(wanted)
    except (SetupProblem, MissingLibraries) as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\n{sentence_for(str(error))} ({error})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next start goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
