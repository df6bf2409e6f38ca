from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PACKAGING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


libraries = load("system_libraries")
bootstrap = load("bootstrap")


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(bootstrap, "site_packages", lambda: folder)
    return folder


def install(folder: Path, name: str, size: int = 5) -> Path:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (folder / f"{name}.py").write_text("x = 1")
    (info / "RECORD").write_text(f"{name}.py,sha256=x,{size}\n{name}.pyc,,\n{info.name}/RECORD,,\n")
    return info


def test_a_whole_package_is_left_alone(site_packages: Path) -> None:
    info = install(site_packages, "whole")
    assert bootstrap.forget_damaged_packages() == []
    assert info.is_dir()


@pytest.mark.parametrize("damage", ["truncated", "missing", "no record"])
def test_a_damaged_package_is_forgotten_so_that_pip_installs_it_again(site_packages: Path, damage: str) -> None:
    info = install(site_packages, "broken")
    if damage == "truncated":
        (site_packages / "broken.py").write_text("x")
    elif damage == "missing":
        (site_packages / "broken.py").unlink()
    else:
        (info / "RECORD").unlink()
    assert bootstrap.forget_damaged_packages() == ["broken-1.0"]
    assert not info.exists()


def test_what_an_interrupted_uninstall_left_is_removed(site_packages: Path) -> None:
    (site_packages / "~orch").mkdir()
    bootstrap.forget_damaged_packages()
    assert list(site_packages.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "Free about"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'\nNo matching distribution", "network"),
        ("ERROR: No matching distribution found for torch==2.14.1", "PYTHON="),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "chown"),
        ("something new", "install.log"),
    ],
)
def test_a_failure_of_pip_becomes_one_sentence_with_the_remedy(output: str, remedy: str) -> None:
    assert remedy in bootstrap.sentence_for(output)


def test_a_full_disk_is_said_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**11, 10**11, 2 * 10**9))
    with pytest.raises(bootstrap.SetupProblem, match=r"2\.0 GB are free"):
        bootstrap.check_disk()


def test_an_old_python_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(bootstrap.SetupProblem, match=r"this is 3\.9.*PYTHON="):
        bootstrap.use_new_enough_python()


def test_an_old_python_goes_on_under_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(sys, "argv", ["packaging/bootstrap.py", "run"])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "python3.12" else None)
    monkeypatch.setattr(bootstrap.os, "execv", lambda path, arguments: called.append((path, arguments)))
    with pytest.raises(bootstrap.SetupProblem):  # a real execv does not come back
        bootstrap.use_new_enough_python()
    assert called == [("/usr/bin/python3.12", ["/usr/bin/python3.12", "packaging/bootstrap.py", "run"])]


def test_the_old_python_check_itself_runs_on_old_pythons() -> None:
    for name in ("bootstrap.py", "system_libraries.py"):
        compile((PACKAGING / name).read_text(), name, "exec", flags=0, dont_inherit=True)
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"import ast; ast.parse(open({str(PACKAGING / name)!r}).read(), feature_version=(3, 7))",
            ],
            check=True,
        )


def test_every_soname_known_to_be_needed_has_a_package() -> None:
    packages, unknown = libraries.packages_for(["libxcb-cursor.so.0", "libEGL.so.1", "libnew.so.7"])
    assert packages == ["libegl1", "libxcb-cursor0"]
    assert unknown == ["libnew.so.7"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler (gcc)")
def test_the_linker_names_a_library_that_went_missing(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int a(void){return 1;}")
    (tmp_path / "b.c").write_text("int a(void); int b(void){return a();}")
    compile_c = ["gcc", "-shared", "-fPIC"]
    inner, outer = tmp_path / "libpilothousetest.so", tmp_path / "libouter.so"
    subprocess.run([*compile_c, "-o", str(inner), str(tmp_path / "a.c")], check=True)
    subprocess.run(
        [*compile_c, "-o", str(outer), str(tmp_path / "b.c"), str(inner), "-Wl,-soname,libouter.so"], check=True
    )
    assert libraries.missing_sonames([outer]) == []
    subprocess.run(
        [*compile_c, "-o", str(outer), str(tmp_path / "b.c"), "-L", str(tmp_path), "-lpilothousetest"], check=True
    )
    assert libraries.missing_sonames([outer]) == ["libpilothousetest.so"]


def test_without_permission_the_one_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "missing_sonames", lambda files: ["libxcb-cursor.so.0"])
    monkeypatch.setattr(libraries, "apt_command", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(libraries.MissingLibraries, match="apt-get install -y --no-install-recommends libxcb-cursor0"):
        libraries.ensure_qt_libraries(tmp_path)


def test_all_of_qt_that_a_start_loads_can_be_loaded_here() -> None:
    installed = Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    files = libraries.qt_files(installed)
    assert {file.name for file in files} >= {"libqxcb.so", "libqoffscreen.so", "QtWidgets.abi3.so"}
    assert libraries.missing_sonames(files) == []


def test_a_program_outside_of_path_but_where_systems_keep_servers_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sbin" / "serverd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(libraries, "_SYSTEM_PATH", str(program.parent))
    monkeypatch.setenv("PATH", "/nowhere")
    assert libraries.missing_packages({"serverd": "server", "one": "pair both", "two": "pair"}) == ["pair", "both"]


def test_services_stay_stopped_while_their_packages_are_installed_and_a_policy_of_the_system_is_kept(
    tmp_path: Path,
) -> None:
    policy = tmp_path / "policy-rc.d"
    with libraries.services_kept_stopped(policy):
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()
    policy.write_text("#!/bin/sh\nexit 0\n")
    with libraries.services_kept_stopped(policy):
        assert policy.read_text().endswith("exit 0\n")
    assert policy.exists()


@pytest.mark.parametrize(("user", "installed"), [(0, ["tool", "server"]), (1000, ["tool"])])
def test_only_root_is_given_packages_with_services(
    user: int, installed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(libraries, "TEST_PROGRAMS", {"tool-not-there": "tool"})
    monkeypatch.setattr(libraries, "TEST_SERVICES", {"server-not-there": "server"})
    monkeypatch.setattr(libraries.os, "geteuid", lambda: user)
    monkeypatch.setattr(libraries, "apt_command", lambda: ["apt-get"])
    monkeypatch.setattr(libraries, "install", lambda packages: bool(asked.append(list(packages)) or True))
    policy = tmp_path / "policy-rc.d"
    keep_stopped = libraries.services_kept_stopped
    monkeypatch.setattr(libraries, "services_kept_stopped", lambda: keep_stopped(policy))
    libraries.ensure_test_programs()
    assert asked == [installed]
    assert ("apt-get install -y --no-install-recommends server" in capsys.readouterr().out) == (user != 0)
