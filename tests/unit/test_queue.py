"""The queue of a host: order, leases that die with their holder, moving, and what is said meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from core.contracts.errors import UserError
from core.contracts.placement import NodePlacement, Placement
from core.contracts.specs import LaunchSpec
from core.jobs.devices import DeviceRequest, devices_for_host, request_for, visible_environment
from core.jobs.queue import Lease, entries, move, queue_folder, waiting_sentence
from tests.helpers.waiting import wait_for

GPUS = ("0", "1", "2", "3")
CPU = DeviceRequest(("cpu",), 1)
ONE = DeviceRequest((), 1)
ALL = DeviceRequest((), 4)


def lease(home: Path, run_id: str, request: DeviceRequest, *, has_turn: bool = True) -> Lease:
    made = Lease(home, run_id, "local", f"run {run_id}")
    made.take(request, GPUS, has_turn=has_turn)
    return made


def order(home: Path) -> list[tuple[str, int]]:
    return [(entry.run_id, entry.position) for entry in entries(home)]


def test_devices_are_handed_out_in_the_order_of_arrival(tmp_path: Path) -> None:
    first, second = lease(tmp_path, "a", DeviceRequest((), 3)), lease(tmp_path, "b", ALL)
    third = lease(tmp_path, "c", ONE)
    assert first.held == ("0", "1", "2")
    assert third.held == (), "it does not overtake one that asks for more"
    assert order(tmp_path) == [("a", 0), ("b", 1), ("c", 2)]
    assert third.take(ONE, GPUS, has_turn=True) == 1
    first.release()
    assert second.take(ALL, GPUS, has_turn=True) == 0
    assert second.held == GPUS
    second.release()
    assert third.take(ONE, GPUS, has_turn=True) == 0
    assert third.held == ("0",)
    (entry,) = entries(tmp_path)
    assert (entry.run_id, entry.devices, entry.asked, entry.name) == ("c", (0,), 1, "run c")
    third.release()
    assert entries(tmp_path) == ()


def test_runs_that_want_other_devices_do_not_wait_for_each_other(tmp_path: Path) -> None:
    held = [
        lease(tmp_path, "a", DeviceRequest(("1",), 1)),
        lease(tmp_path, "b", DeviceRequest(("1", "2"), 2)),
        lease(tmp_path, "c", DeviceRequest(("3",), 1)),
        lease(tmp_path, "d", CPU),
    ]
    assert [made.held for made in held] == [("1",), (), ("3",), ("cpu",)]


def test_a_run_whose_other_hosts_come_first_is_passed_over_until_it_has_its_turn(tmp_path: Path) -> None:
    waits, other = lease(tmp_path, "a", ALL, has_turn=False), lease(tmp_path, "b", ALL)
    assert (waits.held, other.held) == ((), GPUS)
    other.release()
    later = lease(tmp_path, "c", ALL, has_turn=False)
    waits.take(ALL, GPUS, has_turn=True)
    later.take(ALL, GPUS, has_turn=True)
    assert (waits.held, later.held) == (GPUS, ())


def test_a_killed_holder_frees_its_devices_and_leaves_the_queue(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from core.jobs.devices import DeviceRequest
from core.jobs.queue import Lease
lease = Lease(Path(sys.argv[1]), "killed", "local", "")
lease.take(DeviceRequest(("cpu",), 1), (), has_turn=True)
print(lease.held, flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"('cpu',)\n"
        waiting = lease(tmp_path, "next", CPU)
        assert waiting.held == ()
        assert order(tmp_path) == [("killed", 0), ("next", 1)]
        holder.kill()
    assert waiting.take(CPU, (), has_turn=True) == 0
    assert waiting.held == ("cpu",)
    assert order(tmp_path) == [("next", 0)]


def test_those_who_do_not_queue_share_and_are_waited_for(tmp_path: Path) -> None:
    both = [Lease(tmp_path, name, "local", name) for name in "ab"]
    for made in both:
        made.share(CPU)
        assert made.held == ("cpu",)
    waiting = lease(tmp_path, "c", CPU)
    both[0].release()
    waiting.take(CPU, (), has_turn=True)
    assert waiting.held == ()
    both[1].release()
    waiting.take(CPU, (), has_turn=True)
    assert waiting.held == ("cpu",)
    late = Lease(tmp_path, "d", "local", "d")
    late.share(CPU)
    assert late.held == (), "it works all the same, but holds nothing"


def test_a_waiting_run_can_be_moved(tmp_path: Path) -> None:
    holder = lease(tmp_path, "holder", ALL)
    waiting = {name: lease(tmp_path, name, ALL) for name in "abc"}
    move(tmp_path, "c", 1)
    assert order(tmp_path) == [("holder", 0), ("c", 1), ("a", 2), ("b", 3)]
    move(tmp_path, "c", 2)
    assert order(tmp_path) == [("holder", 0), ("a", 1), ("c", 2), ("b", 3)]
    move(tmp_path, "a", 99)
    assert order(tmp_path) == [("holder", 0), ("c", 1), ("b", 2), ("a", 3)]
    holder.release()
    for made in waiting.values():
        made.take(ALL, GPUS, has_turn=True)
    assert [name for name, made in waiting.items() if made.held] == ["c"]
    with pytest.raises(UserError, match="does not wait"):
        move(tmp_path, "c", 1)
    with pytest.raises(UserError, match="does not wait"):
        move(tmp_path, "nobody", 1)


def test_damaged_tickets_are_swept_away(tmp_path: Path) -> None:
    lease(tmp_path, "a", ONE)
    (queue_folder(tmp_path) / "tickets" / "broken.json").write_text("{")
    assert order(tmp_path) == [("a", 0)]
    assert entries(tmp_path / "no home") == ()


def test_many_who_ask_at_once_each_get_a_device_of_their_own(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from core.jobs.devices import DeviceRequest
from core.jobs.queue import Lease
home, name = Path(sys.argv[1]), sys.argv[2]
lease = Lease(home, name, "local", "")
while not lease.held:
    lease.take(DeviceRequest((), 1), ("0", "1"), has_turn=True)
    time.sleep(0.002)
taken = home / f"in-use-{lease.held[0]}"
taken.mkdir()  # fails when another holds the same device
time.sleep(0.02)
taken.rmdir()
lease.release()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[2]
    started = [subprocess.Popen([*command, str(number)], cwd=root) for number in range(6)]
    wait_for(lambda: all(process.poll() is not None for process in started), "all to have had a device")
    assert [process.returncode for process in started] == [0] * 6
    assert entries(tmp_path) == ()


@pytest.mark.parametrize(
    ("request_", "ahead", "sentence"),
    [
        (ONE, 2, "Waits for a free GPU: 2 ahead."),
        (ONE, 0, "Waits for a free GPU: next in line."),
        (ALL, 1, "Waits for 4 free GPUs: 1 ahead."),
        (DeviceRequest(("0", "2"), 2), 0, "Waits for GPUs 0, 2: next in line."),
        (CPU, 1, "Waits for the host to be free: 1 ahead."),
    ],
)
def test_what_is_waited_for_is_said(request_: DeviceRequest, ahead: int, sentence: str) -> None:
    assert waiting_sentence(request_, ahead) == sentence


NAMES = {0: "GPU-a", 1: "GPU-b"}
LOCAL = NodePlacement(node="local", processes=2)
REMOTE = NodePlacement(node="n0", host="big", devices=(1,), processes=1)


@pytest.mark.parametrize(
    ("devices", "queue", "node", "gpus", "names", "visible"),
    [
        ("auto", False, LOCAL, {}, ("cpu",), None),
        ("auto", False, LOCAL, NAMES, ("0", "1"), None),
        ("auto", True, LOCAL, {}, ("cpu",), None),
        ("auto", True, LOCAL, NAMES, (), "GPU-a,GPU-b"),
        ("cpu", False, LOCAL, NAMES, ("cpu",), ""),
        ("cpu", False, LOCAL, {}, ("cpu",), None),
        ("1", False, LOCAL, NAMES, ("1",), "GPU-b"),
        ("1,0", False, LOCAL, NAMES, ("1", "0"), "GPU-b,GPU-a"),
        ("auto", False, REMOTE, NAMES, ("1",), "GPU-b"),
        ("big=0 other=1", False, REMOTE, NAMES, ("0",), "GPU-a"),
        ("other=1", False, REMOTE, NAMES, ("1",), "GPU-b"),
        ("auto", False, msgspec.structs.replace(REMOTE, devices=()), NAMES, ("cpu",), ""),
    ],
)
def test_what_a_node_asks_for_and_what_its_workers_see(
    devices: str, queue: bool, node: NodePlacement, gpus: dict[int, str], names: tuple[str, ...], visible: str | None
) -> None:
    launch = LaunchSpec(devices=devices, queue=queue)
    request = request_for(launch, Placement(nodes=(node,)), node, gpus)
    assert request.exact == names
    held = names or tuple(str(index) for index in gpus)[: request.count]
    assert visible_environment(request, held, gpus).get("CUDA_VISIBLE_DEVICES") == visible


@pytest.mark.parametrize(
    ("devices", "queue", "message"),
    [
        ("5", False, "no GPU 5"),
        ("none", False, "names no GPUs"),
        ("0,0", False, "names no GPUs"),
        ("auto", True, "asks for 3 GPUs and the host has 2"),
    ],
)
def test_devices_that_are_not_there_are_refused(devices: str, queue: bool, message: str) -> None:
    node = NodePlacement(node="local", processes=3)
    with pytest.raises(UserError, match=message):
        request_for(LaunchSpec(devices=devices, queue=queue), Placement(nodes=(node,)), node, NAMES)


def test_a_cluster_hands_out_devices_itself() -> None:
    request = request_for(LaunchSpec(queue=True), Placement(nodes=(REMOTE,), engine="slurm"), REMOTE, NAMES)
    assert request.count == 0
    assert visible_environment(request, (), NAMES) == {}
    assert devices_for_host("a=0,1 b=cpu", "b") == "cpu"
