from __future__ import annotations

import re
from pathlib import Path

import pytest
from PySide6.QtGui import QColor, QIcon
from PySide6.QtWidgets import QApplication, QLabel, QPushButton

from app.viewmodels.resource_files import font_files, icon_file
from app.views.icons import icon
from app.views.theme import DARK, LIGHT, apply_theme, set_role, state_colour, state_icon, theme, theme_host
from core.contracts.states import RunState
from core.plugins.registry import registry

APP = Path(__file__).parents[2] / "app"


def luminance(colour: str) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    parsed = QColor(colour)
    return 0.2126 * linear(parsed.redF()) + 0.7152 * linear(parsed.greenF()) + 0.0722 * linear(parsed.blueF())


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("surface", ["background", "surface", "raised", "sunken", "rail"])
def test_words_can_be_read(tokens, surface):
    behind = getattr(tokens, surface)
    for name in ("text", "text_muted", "accent", "success", "warning", "danger", "info"):
        assert contrast(getattr(tokens, name), behind) >= 4.5, (name, surface)
    assert contrast(tokens.text_faint, behind) >= 3.0, surface


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
def test_curves_stand_out_and_apart(tokens):
    assert len(set(tokens.curves)) == len(tokens.curves) == 8
    for colour in tokens.curves:
        assert contrast(colour, tokens.plot_background) >= 3.0, colour
    assert contrast(tokens.on_accent, tokens.accent) >= 4.5


def test_the_mode_reaches_palette_style_sheet_and_listeners(qtbot):
    app = QApplication.instance()
    apply_theme(app, "light")
    told: list[object] = []
    theme_host().changed.connect(told.append)
    apply_theme(app, "dark")
    theme_host().changed.disconnect(told.append)
    assert told == [DARK]
    assert theme() is DARK
    assert app.palette().window().color() == QColor(DARK.background)
    assert DARK.accent in app.styleSheet()
    apply_theme(app, "light")
    assert app.palette().window().color() == QColor(LIGHT.background)


def test_icons_follow_the_theme(qtbot):
    def ink(drawing: QIcon) -> QColor:
        image = drawing.pixmap(32, 32).toImage()
        solid = [image.pixelColor(x, y) for x in range(32) for y in range(32) if image.pixelColor(x, y).alpha() == 255]
        return solid[0]

    app = QApplication.instance()
    drawing = icon("stop")
    apply_theme(app, "dark")
    assert ink(drawing) == QColor(DARK.text_muted)
    apply_theme(app, "light")
    assert ink(drawing) == QColor(LIGHT.text_muted)
    assert ink(icon("stop", "danger")) == QColor(LIGHT.danger)


def test_every_named_icon_exists(qtbot):
    text = "\n".join(path.read_text() for path in APP.rglob("*.py"))
    named = set(re.findall(r'\bicon(?:_pixmap)?\("([\w-]+)"', text)) | set(
        re.findall(r'icon(?:_name)?="([\w-]+)"', text)
    )
    named |= {kind.icon for kind in registry().kinds.values()} | {state_icon(state) for state in RunState}
    assert len(named) > 20
    assert [name for name in sorted(named) if not icon_file(name).is_file()] == []


def test_an_unknown_icon_is_drawn_as_a_file(qtbot):
    assert not icon("no-such-icon").pixmap(16, 16).isNull()


def test_a_role_changes_the_look_of_a_living_button(qtbot):
    apply_theme(QApplication.instance(), "light")
    button = QPushButton("Go")
    qtbot.addWidget(button)
    button.show()
    plain = button.grab().toImage()
    set_role(button, "primary")
    assert button.grab().toImage() != plain


def test_text_is_drawn_in_the_bundled_font(qtbot):
    assert len(font_files()) == 3
    apply_theme(QApplication.instance(), "light")
    label = QLabel("Pilothouse")
    qtbot.addWidget(label)
    assert label.fontInfo().family() == "Inter"


def test_every_state_has_a_colour_and_a_sign():
    assert {state for state in RunState if state_colour(state, LIGHT) and state_icon(state)} == set(RunState)
