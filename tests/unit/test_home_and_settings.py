"""The home folder and the settings file: newer forms, damage, wrong permissions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.contracts.errors import EnvironmentProblem
from core.contracts.ids import is_run_id, new_run_id
from core.contracts.settings import Settings
from core.settings.home import Home, default_home
from core.settings.store import load_settings, save_settings


def test_a_home_is_made_once_and_opened_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "a 'quoted' \"home\"\nüñ")
    home.prepare()
    home.prepare()
    assert home.runs_dir.is_dir()
    assert home.version_file.read_text() == '{"version": 1}'


def test_a_home_may_be_made_by_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_wrote = threading.Barrier(2)
    write = Path.write_text

    def write_and_wait(self: Path, data: str, encoding: str | None = None) -> int:
        written = write(self, data, encoding)
        both_wrote.wait(10)
        return written

    monkeypatch.setattr(Path, "write_text", write_and_wait)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: Home(tmp_path).prepare(), range(2)))
    assert [path.name for path in tmp_path.glob("home*")] == ["home.json"]


def test_a_newer_home_is_refused_and_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.version_file.write_text('{"version": 99}')
    with pytest.raises(EnvironmentProblem, match="belongs to a newer Pilothouse") as caught:
        home.prepare()
    assert "Upgrade" in caught.value.hint
    assert home.version_file.read_text() == '{"version": 99}'


def test_a_file_in_place_of_the_home_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot be used: (Not a directory|File exists)") as caught:
        Home(tmp_path / "home").prepare()
    assert "PILOTHOUSE_HOME" in caught.value.hint


def test_the_environment_moves_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path / "elsewhere"))
    assert default_home() == tmp_path / "elsewhere"
    monkeypatch.delenv("PILOTHOUSE_HOME")
    assert default_home().name == "pilothouse"


def test_settings_round_trip_and_damage_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    assert load_settings(path) == (Settings(), None)
    save_settings(path, Settings(theme="dark", smoothing=0.6))
    assert load_settings(path) == (Settings(theme="dark", smoothing=0.6), None)
    path.write_text('theme = "pink"\n')
    settings, notice = load_settings(path)
    assert settings == Settings()
    assert notice is not None
    assert "settings.toml.damaged" in notice.hint
    assert path.with_name("settings.toml.damaged").read_text() == 'theme = "pink"\n'


@pytest.mark.parametrize("name", ["digits", "Ünï cödé", "", "../../etc", "a" * 300, "-", "x--y"])
def test_run_ids_are_safe_folder_names_and_sort_by_time(name: str) -> None:
    early = new_run_id(name, datetime(2026, 1, 1, tzinfo=UTC))
    late = new_run_id(name, datetime(2026, 1, 2, tzinfo=UTC))
    assert is_run_id(early)
    assert early < late
    assert len(early) < 64
    assert not is_run_id("notes")
