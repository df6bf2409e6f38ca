"""What every vendor's file owes, on whatever machine this runs: it opens, never raises, and speaks the catalogue."""

from __future__ import annotations

import importlib
import os
import pkgutil
import time

import pytest

import core.hardware.vendors as package
from core.contracts.units import reading_of

VENDORS = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))


def test_the_files_are_found() -> None:
    assert {"amd", "nvidia"} <= set(VENDORS)


@pytest.mark.parametrize("vendor", VENDORS)
def test_reader_keeps_its_promises(vendor: str) -> None:
    module = importlib.import_module(f"{package.__name__}.{vendor}")
    reader = module.open_reader()
    now = time.monotonic()
    first = reader.read(frozenset({os.getpid()}), now)
    second = reader.read(frozenset(), now + 1.0)
    infos = reader.describe(5)
    assert len(first) == len(second) == len(infos)
    assert [info.index for info in infos] == list(range(5, 5 + len(infos)))
    assert {info.vendor for info in infos} <= {vendor}
    keys = {f"gpu.0.{key}" for sample in (*first, *second) for key in sample}
    assert [key for key in keys if reading_of(key).group == "Other"] == []
    assert all(process.gpu_index in range(5, 5 + len(infos)) for process in reader.processes(5))
    assert all(problem.message.endswith(".") and problem.part for problem in reader.problems)
    reader.close()
    reader.close()
    assert module.__doc__
