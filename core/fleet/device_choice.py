"""Which accelerators of each host a run uses: reads ``launch.devices`` and chooses free ones. Pure; asks no host.

A busy one is never taken silently: who holds it is named. A run that waits in its host's queue chooses there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from core.contracts.errors import UserError
from core.contracts.hosts import HostGpu

Wish = tuple[int, ...] | Literal["auto", "cpu"]
_FORMS = "Write auto, cpu, indices such as 0,1, or per host: a=0,1 b=2."
_INDICES = re.compile(r"\d+(,\d+)*")


def wish_for(devices: str, host: str) -> Wish:
    """Return what ``launch.devices`` asks for on a host; ``auto`` for a host that it does not name.

    Raises:
        UserError: The text has none of the forms.
    """
    words = devices.split()
    if not words or words == ["auto"]:
        return "auto"
    if all("=" in word for word in words):
        by_host: dict[str, Wish] = {name: _indices(given) for name, _, given in (word.partition("=") for word in words)}
        return by_host.get(host, "auto")
    return _indices("".join(words)) if len(words) == 1 else _refuse(devices)


def named_hosts(devices: str) -> tuple[str, ...]:
    """Return the hosts that ``launch.devices`` names."""
    return tuple(word.partition("=")[0] for word in devices.split() if "=" in word)


def _indices(text: str) -> Wish:
    if text == "cpu":
        return "cpu"
    if text == "auto":
        return "auto"
    if not _INDICES.fullmatch(text):
        return _refuse(text)
    found = tuple(int(index) for index in text.split(","))
    if len(set(found)) < len(found):
        raise UserError(f"A device is named twice in {text!r}.", "Name each once.")
    return found


def _refuse(text: str) -> Wish:
    raise UserError(f"{text!r} names no devices.", _FORMS)


def choose(host: str, wish: Wish, gpus: Sequence[HostGpu], processes: int, *, may_wait: bool) -> tuple[int, ...]:
    """Return the indices of the accelerators to use; empty for the processor.

    Args:
        host: Name of the host, for sentences.
        wish: What was asked for.
        gpus: What the host has, and who holds it.
        processes: Ranks to start there: as many as ``auto`` takes.
        may_wait: The run waits for busy ones on the host: they may be named.

    Raises:
        UserError: There are not as many, or they are busy; all of them are named.
    """
    if wish == "cpu" or (wish == "auto" and not gpus):
        return ()
    by_index = {gpu.index: gpu for gpu in gpus}
    if wish == "auto":
        if may_wait:
            return ()
        free = [gpu.index for gpu in gpus if not gpu.held_by]
        if len(free) >= processes:
            return tuple(free[:processes])
        if len(gpus) < processes:
            has = "1 GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
            raise UserError(
                f"{host} has {has}, and the run starts {processes} processes there.",
                "Start fewer processes, or choose the processor: --devices cpu",
            )
        raise _busy(host, [gpu for gpu in gpus if gpu.held_by])
    unknown = [index for index in wish if index not in by_index]
    if unknown:
        has = f"GPUs {', '.join(map(str, by_index))}" if by_index else "no GPU"
        raise UserError(f"{host} has no GPU {unknown[0]}: it has {has}.", "Correct the devices.")
    held = [by_index[index] for index in wish if by_index[index].held_by]
    if held and not may_wait:
        raise _busy(host, held)
    return wish


def _busy(host: str, held: Sequence[HostGpu]) -> UserError:
    named = "; ".join(f"GPU {gpu.index} by {', '.join(gpu.held_by)}" for gpu in held)
    return UserError(
        f"Too few GPUs of {host} are free: held are {named}.", "Wait for them (--queue), or choose others."
    )
