"""The probe runs in every POSIX shell and tells the same; what a host prints around it, or lacks, does no harm."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from core.fleet.host_facts import HostFacts, facts_of
from core.fleet.probe_script import SCRIPT

MARK = "@0123456789abcdef"
HOSTILE = ["/etc/passwd", "/no/such", "/tmp/a b'\"$(touch /tmp/never)\n`x`;*"]


def probed(shell: list[str], work_dir: str, paths: list[str], **env: str) -> HostFacts:
    before = time.time()
    done = subprocess.run(
        [*shell, "-s", MARK, work_dir, *paths],
        input=SCRIPT.encode(),
        capture_output=True,
        check=False,
        env={**os.environ, "UV_DEFAULT_INDEX": "file:///usr", **env},
        timeout=50,
    )
    assert done.stderr == b""
    noise = b"Welcome to the cluster!\x1b[0m\nYour quota: 90 %"
    facts = facts_of(
        noise + done.stdout + b"bye\n", MARK, work_dir=work_dir, paths=paths, asked_between=(before, time.time())
    )
    assert facts is not None
    return facts


@pytest.mark.parametrize("shell", [["dash"], ["bash"], ["busybox", "sh"]], ids=" ".join)
def test_every_shell_tells_what_this_machine_is(shell: list[str], tmp_path: Path) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"not installed: {shell[0]}")
    facts = probed(shell, str(tmp_path), HOSTILE)
    assert facts.kernel.startswith("Linux")
    assert facts.arch == os.uname().machine
    assert facts.clock_skew_s is not None
    assert abs(facts.clock_skew_s) <= facts.clock_doubt_s + 0.05
    assert facts.memory_total_bytes >= facts.memory_available_bytes > 0
    assert facts.cpus >= 1
    assert facts.work_dir == str(tmp_path)
    assert facts.is_work_dir_writable
    assert list(tmp_path.iterdir()) == []
    assert facts.work_disk is not None
    assert facts.work_disk.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert facts.limits["open files"] is None or facts.limits["open files"] > 0
    assert [(path.exists, path.is_readable) for path in facts.paths] == [(True, True), (False, False), (False, False)]
    assert not Path("/tmp/never").exists()
    assert any(python.version[:2] >= (3, 11) for python in facts.pythons)


def test_a_work_folder_below_home_is_made_absolute_and_one_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    facts = probed(["sh"], "~/runs of mine", [], HOME=str(tmp_path))
    assert facts.work_dir == f"{tmp_path}/runs of mine"
    assert facts.is_work_dir_writable
    assert not facts.work_dir_exists
    assert not probed(["sh"], "/etc/passwd/below", []).is_work_dir_writable


def test_an_index_named_for_pip_is_seen_and_its_credentials_are_not_shown(tmp_path: Path) -> None:
    config = tmp_path / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[global]\nindex-url = http://me:geheim@127.0.0.1:9/simple\n")
    facts = probed(["sh"], str(tmp_path), [], HOME=str(tmp_path), UV_DEFAULT_INDEX="")
    assert facts.index == "http://127.0.0.1:9/simple"
    assert (facts.index_is_uv, facts.index_answers) == (False, False)
    assert "geheim" in facts.index_url
    assert "geheim" not in repr(facts)
    assert probed(["sh"], str(tmp_path), []).index_is_uv


def test_gpus_and_who_holds_them(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        ["sleep", "60"], env={"PATH": os.environ["PATH"], "PILOTHOUSE_RUN": "20261124-digits-1a2b3c"}
    )
    other = subprocess.Popen(["sleep", "60"])
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        f"""#!/bin/sh
case "$*" in
  *query-gpu*) printf '0, GPU-a, 81559, 70000, 550.54.15, NVIDIA H100 80GB HBM3\\n1, GPU-b, 81559, 3, 550.54.15, NVIDIA H100 80GB HBM3\\n' ;;
  *query-compute*) printf 'GPU-a, {holder.pid}, /usr/bin/python3.11\\nGPU-a, {other.pid}, /opt/a, b/train\\n' ;;
  *) echo '| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |' ;;
esac
"""
    )
    smi.chmod(0o755)
    try:
        facts = probed(["sh"], str(tmp_path), [], PATH=f"{tmp_path}:{os.environ['PATH']}")
    finally:
        for process in (holder, other):
            process.kill()
            process.wait()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert [(gpu.index, gpu.memory_bytes, gpu.memory_used_bytes) for gpu in facts.gpus] == [
        (0, 81559 << 20, 70000 << 20),
        (1, 81559 << 20, 3 << 20),
    ]
    assert facts.gpus[0].held_by == ("20261124-digits-1a2b3c", f"{user} ({other.pid} train)")
    assert facts.gpus[1].held_by == ()
    assert (facts.driver, facts.driver_cuda) == ("550.54.15", (12, 4))


def test_a_command_that_hangs_does_not_hang_the_probe(tmp_path: Path) -> None:
    if shutil.which("timeout") is None:
        pytest.skip("not installed: timeout (package coreutils)")
    script = SCRIPT.replace("limit 15 ", "limit 0.2 ").replace("limit 10 ", "limit 0.2 ")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexec sleep 50\n")
    smi.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "UV_DEFAULT_INDEX": "file:///usr"}
    done = subprocess.run(
        ["sh", "-s", MARK, "/"], input=script.encode(), capture_output=True, check=False, env=environment, timeout=30
    )
    facts = facts_of(done.stdout, MARK, work_dir="/")
    assert facts is not None
    assert facts.gpus == ()


def test_output_that_stops_half_way_is_no_answer() -> None:
    assert facts_of(f"{MARK} start\t1.0\n{MARK} user\tada\n".encode(), MARK, work_dir="/w") is None
    assert facts_of(b"This account is currently not available.\n", MARK, work_dir="/w") is None


def test_a_clock_is_compared_without_the_time_that_the_probe_took() -> None:
    said = f"{MARK} start\t1100.5\n{MARK} end\t1104.5\n".encode()
    facts = facts_of(said, MARK, work_dir="/w", asked_between=(1000.0, 1004.2))
    assert facts is not None
    assert facts.clock_skew_s == pytest.approx(100.4)
    assert facts.clock_doubt_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("line", "kind", "is_network"),
    [
        ("/dev/sda1 100 40 60 40% /", "ext2/ext3", False),
        ("server:/export/my data 100 40 60 40% /mnt/my data", "UNKNOWN (0x6969)", True),
        ("scratch 100 40 60 40% /scratch", "lustre", True),
        ("odd 100 40 60 40% /odd", "UNKNOWN (0x1)", None),
    ],
)
def test_whether_a_folder_is_on_a_network_file_system(line: str, kind: str, is_network: bool | None) -> None:
    said = f"{MARK} work.disk\t{line}\n{MARK} work.fs\t{kind}\n{MARK} end\t1\n".encode()
    facts = facts_of(said, MARK, work_dir="/w")
    assert facts is not None
    assert facts.work_disk is not None
    assert (facts.work_disk.free_bytes, facts.work_disk.is_network) == (60 << 10, is_network)
    assert facts.work_disk.mount == line.partition("% ")[2]
