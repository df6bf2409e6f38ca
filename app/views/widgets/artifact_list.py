"""Artifacts and checkpoints of a run: what they are, how large, the start of their hash, and buttons to use them.

A checkpoint of a training offers to start a new run from it (``start_from_<step>``); newest and best are marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from app.viewmodels.training_facts import best_step, can_start_from, checkpoint_marks
from app.viewmodels.wording import moment_text, size_text
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.chip import Chip
from app.views.widgets.elided_label import ElidedLabel
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.run_menu import open_path
from core.contracts.runs import ArtifactRecord, CheckpointRecord, RunDetail

_MAX_ROWS = 300
_OPENABLE = {".html", ".htm", ".pdf", ".png", ".svg", ".csv", ".txt", ".md", ".json", ".toml"}
_ICONS = {"model": "model", "report": "chart", "dataset": "data"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One row: an artifact or a checkpoint in the same words."""

    title: str
    about: str
    path: Path
    sha256: str
    icon_name: str
    mark: str = ""
    start_step: int | None = None


class ArtifactList(QScrollArea):
    """Two cards of rows; buttons are called ``open_<name>`` and ``folder_<name>``.

    Signals:
        start_wanted: ``CheckpointRecord`` to start a new run from.
    """

    start_wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self._shown: object = None
        self._checkpoints: dict[int, CheckpointRecord] = {}

    def show_detail(self, detail: RunDetail) -> None:
        """Show what a run made."""
        best = best_step(detail)
        if self._shown == (detail.artifacts, detail.checkpoints, best):
            return
        self._shown = (detail.artifacts, detail.checkpoints, best)
        inner = QWidget()
        inner.setObjectName("scroll_body")
        stack = QVBoxLayout(inner)
        stack.setContentsMargins(0, SPACE.s, SPACE.s, SPACE.s)
        stack.setSpacing(SPACE.m)
        if not detail.artifacts and not detail.checkpoints:
            words = "Models, reports and checkpoints appear here as the run writes them."
            stack.addWidget(EmptyState("artifact", "No artifacts yet", words))
        if detail.artifacts:
            stack.addWidget(self._card("Artifacts", [_of_artifact(record) for record in detail.artifacts]))
        if detail.checkpoints:
            newest_first = sorted(detail.checkpoints, key=lambda record: -record.step)
            self._checkpoints = {record.step: record for record in newest_first}
            newest, starts = newest_first[0].step, can_start_from(detail.spec_toml)
            items = [
                _of_checkpoint(record, checkpoint_marks(record, newest, best), starts=starts) for record in newest_first
            ]
            stack.addWidget(self._card("Checkpoints", items))
        stack.addStretch(1)
        self.setWidget(inner)

    def _card(self, title: str, items: list[_Item]) -> Card:
        hidden = len(items) - _MAX_ROWS
        card = Card(f"{title} ({len(items)})")
        for item in items[:_MAX_ROWS]:
            card.body.addWidget(self._row(item))
        if hidden > 0:
            more = QLabel(f"and {hidden} more in the run's folder")
            set_kind(more, "caption")
            card.body.addWidget(more)
        return card

    def _row(self, item: _Item) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 2, 0, 2)
        layout.setSpacing(SPACE.m)
        picture = QLabel()
        picture.setPixmap(icon(item.icon_name).pixmap(20, 20))
        words = QVBoxLayout()
        words.setSpacing(0)
        words.addWidget(ElidedLabel(item.title, "h3"))
        words.addWidget(ElidedLabel(item.about, "caption"))
        layout.addWidget(picture)
        layout.addLayout(words, 1)
        if item.mark:
            layout.addWidget(Chip(item.mark, "accent", "checkpoint"), 0, Qt.AlignmentFlag.AlignVCenter)
        if item.start_step is not None:
            layout.addWidget(self._start_button(item.start_step))
        layout.addWidget(_hash_button(item.sha256), 0, Qt.AlignmentFlag.AlignVCenter)
        if item.path.suffix.lower() in _OPENABLE:
            layout.addWidget(_button("Open", "open", f"open_{item.title}", item.path))
        layout.addWidget(_button("Folder", "folder", f"folder_{item.title}", item.path.parent))
        return row

    def _start_button(self, step: int) -> QPushButton:
        button = QPushButton("New run from this…")
        button.setIcon(icon("clone"))
        button.setObjectName(f"start_from_{step}")
        button.setToolTip("Fill in the wizard as this run, with this checkpoint to start from")
        button.setAccessibleName(f"New run from the checkpoint of step {step}")
        button.clicked.connect(lambda: self.start_wanted.emit(self._checkpoints[step]))
        return button


def _of_artifact(record: ArtifactRecord) -> _Item:
    return _Item(
        title=record.name,
        about=f"{record.kind} · {size_text(record.size_bytes)}",
        path=Path(record.path),
        sha256=record.sha256,
        icon_name=_ICONS.get(record.kind, "artifact"),
    )


def _of_checkpoint(record: CheckpointRecord, mark: str, *, starts: bool) -> _Item:
    return _Item(
        title=f"Step {record.step:,}".replace(",", "\u202f"),
        about=f"{size_text(record.size_bytes)} · {moment_text(record.ts)}",
        path=Path(record.path),
        sha256=record.sha256,
        icon_name="checkpoint",
        mark=mark,
        start_step=record.step if starts else None,
    )


def _hash_button(sha256: str) -> QPushButton:
    button = QPushButton(f"sha256 {sha256[:10]}…")
    button.setToolTip(f"{sha256}\nPress to copy.")
    button.setAccessibleName("Copy the SHA-256")
    button.setVisible(bool(sha256))
    set_role(button, "ghost")
    button.clicked.connect(lambda: QGuiApplication.clipboard().setText(sha256))
    return button


def _button(text: str, icon_name: str, name: str, path: Path) -> QPushButton:
    button = QPushButton(text)
    button.setIcon(icon(icon_name))
    button.setObjectName(name)
    button.setToolTip(str(path))
    button.clicked.connect(lambda: open_path(path))
    return button
