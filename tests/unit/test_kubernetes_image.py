"""The folder that a container image is built from."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from core.cli.main import main
from core.contracts.errors import EnvironmentProblem
from core.fleet.kubernetes.image import write_build_folder


def test_the_wheel_and_the_containerfile_belong_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "my image"
    assert main(lambda _: 1, ["image", str(folder), "--base", "example/base:1", "--packages", "torch", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    text = Path(said["containerfile"]).read_text()
    wheel = next(folder.glob("pilothouse_worker-*.whl"))
    assert "FROM example/base:1\n" in text
    assert re.search(rf'install [^\n]*"/tmp/{re.escape(wheel.name)}\[torch\]"', text)
    assert "core/cli/pod.py" in zipfile.ZipFile(wheel).namelist()
    assert f"'{folder}'" in said["command"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_build_folder(tmp_path / "file")
