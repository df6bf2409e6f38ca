"""The choice of devices: free ones, named ones, and who holds the busy ones."""

from __future__ import annotations

import pytest

from core.contracts.errors import UserError
from core.contracts.hosts import HostGpu
from core.fleet.device_choice import Wish, choose, named_hosts, wish_for
from core.fleet.direct_runs import moved_to
from core.fleet.plan import check_hosts_of
from core.plugins.decode import decode_spec


def gpus(*held: str) -> list[HostGpu]:
    return [HostGpu(index=n, name="H", memory_bytes=1, held_by=(by,) if by else ()) for n, by in enumerate(held)]


@pytest.mark.parametrize(
    ("text", "host", "wish"),
    [
        ("auto", "a", "auto"),
        ("", "a", "auto"),
        ("cpu", "a", "cpu"),
        ("0,1", "a", (0, 1)),
        ("a=0,1 b=2", "b", (2,)),
        ("a=0,1 b=cpu", "b", "cpu"),
        ("a=0", "b", "auto"),
    ],
)
def test_what_is_asked_of_a_host(text: str, host: str, wish: Wish) -> None:
    assert wish_for(text, host) == wish


@pytest.mark.parametrize("text", ["x", "0;1", "0 1", "a=0 1", "a=x", "0,0", "-1", "0,"])
def test_what_names_no_devices_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        wish_for(text, "a")


def test_hosts_that_are_named() -> None:
    assert named_hosts("a=0,1 b=2") == ("a", "b")
    assert named_hosts("0,1") == ()


def test_free_ones_are_taken_and_busy_ones_named() -> None:
    assert choose("h", "auto", gpus("", "ann (12 python)", ""), 2, may_wait=False) == (0, 2)
    assert choose("h", "auto", [], 4, may_wait=False) == ()
    assert choose("h", "cpu", gpus(""), 1, may_wait=False) == ()
    with pytest.raises(UserError, match=r"GPU 1 by ann \(12 python\)"):
        choose("h", "auto", gpus("", "ann (12 python)"), 2, may_wait=False)
    with pytest.raises(UserError, match="GPU 1 by ann"):
        choose("h", (1,), gpus("", "ann (12 python)"), 1, may_wait=False)


def test_one_that_waits_may_name_busy_ones_and_leaves_auto_to_the_queue() -> None:
    assert choose("h", (1,), gpus("", "ann"), 1, may_wait=True) == (1,)
    assert choose("h", "auto", gpus("", "ann"), 1, may_wait=True) == ()


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="has 1 GPU, and the run starts 2"):
        choose("h", "auto", gpus(""), 2, may_wait=False)
    with pytest.raises(UserError, match="no GPU 3"):
        choose("h", (3,), gpus(""), 1, may_wait=True)


def test_on_other_hosts_the_devices_of_those_that_left_are_not_asked_for() -> None:
    launch = {"hosts": ["a", "b"], "devices": "a=0,1 b=2"}
    spec = decode_spec({"kind": "train.script", "script": "/proj/train.py", "launch": launch})
    moved = moved_to(spec, ("b", "c"))
    assert (moved.launch.hosts, moved.launch.devices) == (("b", "c"), "b=2")
    check_hosts_of(moved)
    assert moved_to(spec, ("c",)).launch.devices == "auto"
