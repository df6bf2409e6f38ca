"""The pins of constraints.txt cover what pyproject.toml asks for, and are what this environment really has."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): pinned for name, pinned in pairs}


def wanted() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(item for extra in extras for item in extra)]
    return {canonical(re.split(r"[\s<>=!~;\[]", item)[0]) for item in requirements}


def test_every_direct_dependency_is_pinned() -> None:
    assert wanted() - set(pins()) == set()


def test_the_packages_of_a_platform_are_left_to_torch() -> None:
    assert [name for name in pins() if re.match(r"nvidia-(cu|nc|nv)|cuda-|triton", name)] == []


@pytest.mark.parametrize("name", sorted(wanted()))
def test_this_environment_has_the_pinned_version(name: str) -> None:
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.fail(f"{name} is not installed: run 'make setup'")
    assert installed.partition("+")[0] == pins()[name].partition("+")[0]
