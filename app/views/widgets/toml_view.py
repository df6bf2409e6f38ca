"""Shows a spec as TOML, coloured and read-only, with a button that copies it."""

from __future__ import annotations

import re

from PySide6.QtGui import QColor, QGuiApplication, QSyntaxHighlighter, QTextCharFormat, QTextDocument
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from app.views.icons import icon
from app.views.theme import SPACE, Theme, mono_font, set_role, theme, theme_host

_RULES = (
    (re.compile(r"^\s*\[[^\]]*\]"), "accent"),
    (re.compile(r"^\s*[\w.\"-]+(?=\s*=)"), "text"),
    (re.compile(r"(?<==)\s*(?:true|false|[+-]?[\d_.]+(?:e[+-]?\d+)?)\s*$", re.IGNORECASE), "warning"),
    (re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'"), "success"),
    (re.compile(r"#.*$"), "text_faint"),
)


class TomlHighlighter(QSyntaxHighlighter):
    """Colours tables, keys, numbers, texts and comments."""

    def __init__(self, document: QTextDocument) -> None:
        super().__init__(document)
        self._formats: list[tuple[re.Pattern[str], QTextCharFormat]] = []
        self.set_theme(theme())

    def set_theme(self, tokens: Theme) -> None:
        """Take on a theme."""
        self._formats = []
        for pattern, name in _RULES:
            form = QTextCharFormat()
            form.setForeground(QColor(getattr(tokens, name)))
            self._formats.append((pattern, form))
        self.rehighlight()

    def highlightBlock(self, text: str) -> None:
        """Colour one line."""
        for pattern, form in self._formats:
            for match in pattern.finditer(text):
                self.setFormat(match.start(), match.end() - match.start(), form)


class TomlView(QWidget):
    """A read-only text of a spec."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACE.s)
        self.edit = QPlainTextEdit()
        self.edit.setReadOnly(True)
        self.edit.setFont(mono_font(12))
        self.edit.setAccessibleName("Spec as TOML")
        self.edit.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self._highlighter = TomlHighlighter(self.edit.document())
        layout.addWidget(self.edit, 1)
        self.buttons = QHBoxLayout()
        self.buttons.setSpacing(SPACE.s)
        copy = QPushButton("Copy")
        copy.setIcon(icon("copy"))
        copy.setObjectName("copy_toml")
        set_role(copy, "secondary")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.edit.toPlainText()))
        self.buttons.addWidget(copy)
        self.buttons.addStretch(1)
        layout.addLayout(self.buttons)
        theme_host().changed.connect(self._highlighter.set_theme)

    def set_text(self, text: str) -> None:
        """Show a text, keeping the place when it is the same."""
        if text != self.edit.toPlainText():
            self.edit.setPlainText(text)

    def text(self) -> str:
        """Return the text."""
        return self.edit.toPlainText()
