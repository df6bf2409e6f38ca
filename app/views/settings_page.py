"""Settings: appearance, notifications, plots, the data folder, diagnostics and the keyboard. Each change is kept at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from app.controllers.actions import ActionList
from app.controllers.notices import notify
from app.controllers.settings_controller import SettingsController
from app.views.icons import icon
from app.views.page import Page
from app.views.theme import SPACE, set_kind
from app.views.widgets.card import Card
from app.views.widgets.elided_label import ElidedLabel
from core.contracts.notices import Severity
from core.contracts.settings import Settings, ThemeMode

_MODES: tuple[tuple[ThemeMode, str, str], ...] = (
    ("system", "System", "settings"),
    ("light", "Light", "sun"),
    ("dark", "Dark", "moon"),
)
_MAX_WIDTH = 760
_TEXT_WIDTH = 560


class SettingsPage(Page):
    """What the user may set."""

    title: ClassVar[str] = "Settings"
    icon_name: ClassVar[str] = "settings"
    subtitle: ClassVar[str] = "Every change is kept at once."

    def __init__(self, controller: SettingsController, actions: ActionList, parent: QWidget | None = None) -> None:
        super().__init__(parent, scrolls=True)
        self._controller = controller
        self._num_binned = 0
        column = QVBoxLayout()
        column.setSpacing(SPACE.m)
        for card in (self._appearance(), self._behaviour(), self._data(), self._diagnostics(), _keyboard(actions)):
            card.setMaximumWidth(_MAX_WIDTH)
            column.addWidget(card)
        self.body.addLayout(column)
        self.body.addStretch(1)
        controller.changed.connect(self._show)
        controller.diagnosed.connect(_on_diagnosed)
        self._show(controller.settings)

    def activate(self) -> None:
        """Count the bin anew."""
        super().activate()
        self._controller.count_bin()

    def _appearance(self) -> Card:
        card = Card("Appearance")
        row, words = _row("Theme", "Light, dark, or as the system says.")
        self._themes: dict[ThemeMode, QPushButton] = {}
        group = QButtonGroup(self)
        for mode, title, icon_name in _MODES:
            button = QPushButton(title)
            button.setIcon(icon(icon_name))
            button.setCheckable(True)
            button.setObjectName(f"theme_{mode}")
            button.setProperty("segment", True)
            button.clicked.connect(self._theme_setter(mode))
            group.addButton(button)
            self._themes[mode] = button
            row.addWidget(button)
        card.body.addLayout(words)
        return card

    def _theme_setter(self, mode: ThemeMode) -> Callable[[], None]:
        return lambda: self._controller.set_theme(mode)

    def _behaviour(self) -> Card:
        card = Card("Runs and curves")
        row, words = _row(
            "Notify when a run ends",
            "Shows a desktop notification where the desktop has them; also while the window is closed to the tray.",
        )
        self._notify = QCheckBox()
        self._notify.setObjectName("notify_on_end")
        self._notify.setAccessibleName("Notify when a run ends")
        self._notify.toggled.connect(lambda wanted: self._controller.set_notify_on_end(wanted=wanted))
        row.addWidget(self._notify)
        card.body.addLayout(words)
        row, words = _row("Curve smoothing", "What new plots start with; 0 shows every point as it is.")
        self._smoothing = QSlider(Qt.Orientation.Horizontal)
        self._smoothing.setObjectName("smoothing")
        self._smoothing.setRange(0, 99)
        self._smoothing.setFixedWidth(180)
        self._smoothing.setAccessibleName("Curve smoothing")
        self._smoothing_value = QLabel()
        self._smoothing_value.setMinimumWidth(36)
        self._smoothing.valueChanged.connect(
            lambda hundredths: self._smoothing_value.setText(f"{hundredths / 100:.2f}")
        )
        self._smoothing.sliderReleased.connect(self._keep_smoothing)
        self._smoothing.actionTriggered.connect(self._on_smoothing_moved_by_key)
        row.addWidget(self._smoothing)
        row.addWidget(self._smoothing_value)
        card.body.addLayout(words)
        return card

    def _data(self) -> Card:
        card = Card("Data")
        path = str(self._controller.home_path)
        row, words = _row(
            "Data folder",
            "Runs, their history and these settings. To move it, close Pilothouse, move the folder, and start again with PILOTHOUSE_HOME set to its new place.",
        )
        opener = QPushButton("Open folder")
        opener.setIcon(icon("folder"))
        opener.setObjectName("open_home")
        opener.clicked.connect(lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(path)))
        row.addWidget(opener)
        card.body.addLayout(words)
        shown = ElidedLabel(path, "mono")
        shown.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        card.body.addWidget(shown)
        row, words = _row(
            "History", "An index over the run folders. It can be made anew from them at any time; nothing is lost."
        )
        rebuild = QPushButton("Rebuild")
        rebuild.setIcon(icon("refresh"))
        rebuild.setObjectName("rebuild_history")
        rebuild.clicked.connect(self._on_rebuild_clicked)
        row.addWidget(rebuild)
        card.body.addLayout(words)
        card.body.addLayout(self._bin())
        return card

    def _bin(self) -> QHBoxLayout:
        row, words = _row("Bin", "Deleted runs stay here, with their files, until the bin is emptied.")
        self._empty = QPushButton("Empty…")
        self._empty.setIcon(icon("trash"))
        self._empty.setObjectName("empty_bin")
        self._empty.setEnabled(False)
        self._empty.clicked.connect(self._on_empty_clicked)
        self._controller.bin_counted.connect(self._on_bin_counted)
        row.addWidget(self._empty)
        return words

    def _diagnostics(self) -> Card:
        card = Card("Help")
        row, words = _row(
            "Diagnostics",
            "Versions, hardware and the last crash report, for a question or a bug report. Passwords, tokens and your name are removed.",
        )
        copy = QPushButton("Copy diagnostics")
        copy.setIcon(icon("copy"))
        copy.setObjectName("copy_diagnostics")
        copy.clicked.connect(self._controller.diagnose)
        row.addWidget(copy)
        card.body.addLayout(words)
        return card

    def _show(self, settings: Settings) -> None:
        self._themes[settings.theme].setChecked(True)
        for widget in (self._notify, self._smoothing):
            widget.blockSignals(True)
        self._notify.setChecked(settings.notify_on_end)
        self._smoothing.setValue(round(settings.smoothing * 100))
        self._smoothing_value.setText(f"{settings.smoothing:.2f}")
        for widget in (self._notify, self._smoothing):
            widget.blockSignals(False)

    def _keep_smoothing(self) -> None:
        self._controller.set_smoothing(self._smoothing.sliderPosition() / 100)

    def _on_smoothing_moved_by_key(self, _action: int) -> None:
        if not self._smoothing.isSliderDown():
            self._keep_smoothing()

    def _on_rebuild_clicked(self) -> None:
        self._controller.rebuild_history()
        notify(
            Severity.INFO, "The history is being made anew from the run folders.", "You can go on working meanwhile."
        )

    def _on_bin_counted(self, num_runs: int) -> None:
        self._num_binned = num_runs
        self._empty.setEnabled(num_runs > 0)
        self._empty.setText(f"Empty ({num_runs})…" if num_runs else "Empty…")

    def _on_empty_clicked(self) -> None:
        runs = "1 run" if self._num_binned == 1 else f"{self._num_binned} runs"
        box = QMessageBox(self)
        box.setObjectName("confirm_empty_bin")
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle("Empty the bin")
        box.setText(f"Remove {runs} for good?")
        box.setInformativeText("Their checkpoints, models and curves are deleted from the disk. This cannot be undone.")
        yes = box.addButton("Remove for good", QMessageBox.ButtonRole.DestructiveRole)
        box.setDefaultButton(box.addButton("Keep", QMessageBox.ButtonRole.RejectRole))
        box.exec()
        if box.clickedButton() is yes:
            self._controller.empty_bin()


def _on_diagnosed(text: str) -> None:
    QGuiApplication.clipboard().setText(text)
    notify(Severity.SUCCESS, "The diagnostics are on the clipboard.", "Read them before you send them.")


def _row(name: str, sentence: str) -> tuple[QHBoxLayout, QHBoxLayout]:
    """Return the layout for the controls at the right, and the whole row."""
    whole = QHBoxLayout()
    whole.setSpacing(SPACE.l)
    words = QVBoxLayout()
    words.setSpacing(2)
    head, tail = QLabel(name), QLabel(sentence)
    set_kind(tail, "caption")
    tail.setWordWrap(True)
    # The cards are narrower than the page, whose layout asks for the height at its own width: that cuts lines off.
    lines = tail.fontMetrics().boundingRect(0, 0, _TEXT_WIDTH, 10_000, Qt.TextFlag.TextWordWrap, sentence)
    tail.setMinimumHeight(lines.height())
    tail.setAlignment(Qt.AlignmentFlag.AlignTop)
    words.addWidget(head)
    words.addWidget(tail)
    whole.addLayout(words, 1)
    controls = QHBoxLayout()
    controls.setSpacing(SPACE.s)
    whole.addLayout(controls)
    return controls, whole


def _keyboard(actions: ActionList) -> Card:
    card = Card("Keyboard")
    grid = QGridLayout()
    grid.setHorizontalSpacing(SPACE.l)
    grid.setVerticalSpacing(SPACE.xs + 2)
    grid.setColumnStretch(1, 1)
    for row, action in enumerate(actions.with_shortcut()):
        keys, title = QLabel(action.shortcut), QLabel(action.title)
        set_kind(keys, "mono")
        grid.addWidget(keys, row, 0)
        grid.addWidget(title, row, 1)
    card.body.addLayout(grid)
    return card
