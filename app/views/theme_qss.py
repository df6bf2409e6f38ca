"""The style sheet, made from the tokens. One string per family of widgets; sizes are device-independent pixels."""

from __future__ import annotations

from app.viewmodels.resource_files import theme_file
from app.views.theme_tokens import MONO_FAMILIES, SPACE, Theme


def style_sheet(t: Theme) -> str:
    """Return the whole style sheet of a theme."""
    return "\n".join(
        (_surfaces(t), _labels(t), _buttons(t), _inputs(t), _choices(t), _items(t), _bars(t), _tabs(t), _floating(t))
    )


def _glyph(name: str) -> str:
    return theme_file(name).as_posix()


def _surfaces(t: Theme) -> str:
    return f"""
QMainWindow, QDialog, QWidget#page, QScrollArea, QScrollArea > QWidget > QWidget#scroll_body {{ background: {t.background}; }}
QScrollArea {{ border: none; }}
QWidget[surface="card"] {{ background: {t.surface}; border: 1px solid {t.border}; border-radius: {SPACE.radius}px; }}
QWidget[surface="card"][clickable="true"]:hover {{ border-color: {t.border_strong}; background: {t.raised}; }}
QWidget[surface="card"][clickable="true"]:focus, QWidget[surface="card"][chosen="true"] {{ border-color: {t.accent}; }}
QWidget[surface="hero"] {{ background: {t.accent_soft}; border: 1px solid {t.border}; border-radius: 12px; }}
QWidget[surface="sunken"] {{ background: {t.sunken}; border: 1px solid {t.border}; border-radius: {SPACE.radius_small}px; }}
QWidget[surface="rail"] {{ background: {t.rail}; border: none; border-right: 1px solid {t.border}; }}
QWidget[surface="bar"] {{ background: {t.rail}; border: none; border-top: 1px solid {t.border}; }}
QFrame[separator="true"] {{ background: {t.border}; border: none; max-height: 1px; min-height: 1px; }}
QSplitter::handle {{ background: transparent; }}
QSplitter::handle:hover {{ background: {t.accent_soft}; }}
"""


def _labels(t: Theme) -> str:
    mono = ", ".join(f'"{family}"' for family in MONO_FAMILIES)
    return f"""
QLabel {{ color: {t.text}; background: transparent; }}
QLabel:disabled {{ color: {t.text_faint}; }}
QLabel[kind="h1"] {{ font-size: 22px; font-weight: 600; }}
QLabel[kind="h2"] {{ font-size: 15px; font-weight: 600; }}
QLabel[kind="h3"] {{ font-size: 13px; font-weight: 600; }}
QLabel[kind="value"] {{ font-size: 20px; font-weight: 600; }}
QLabel[kind="caption"] {{ font-size: 12px; color: {t.text_muted}; }}
QLabel[kind="muted"] {{ color: {t.text_muted}; }}
QLabel[kind="error"] {{ color: {t.danger}; font-size: 12px; }}
QLabel[kind="mono"] {{ font-family: {mono}; font-size: 12px; color: {t.text_muted}; }}
"""


def _buttons(t: Theme) -> str:
    return f"""
QPushButton {{
  background: {t.surface}; color: {t.text}; border: 1px solid {t.border_strong}; border-radius: {SPACE.radius_small}px;
  padding: 0 14px; min-height: 30px; font-weight: 500; }}
QPushButton:hover {{ background: {t.hover}; }}
QPushButton:pressed, QPushButton:checked {{ background: {t.pressed}; }}
QPushButton:focus {{ border: 2px solid {t.accent}; padding: 0 13px; min-height: 28px; }}
QPushButton:disabled {{ color: {t.text_faint}; background: {t.sunken}; border-color: {t.border}; }}
QPushButton[role="primary"] {{ background: {t.accent}; color: {t.on_accent}; border: 1px solid {t.accent}; font-weight: 600; }}
QPushButton[role="primary"]:hover {{ background: {t.accent_hover}; border-color: {t.accent_hover}; }}
QPushButton[role="primary"]:pressed {{ background: {t.accent_pressed}; }}
QPushButton[role="primary"]:focus {{ border: 2px solid {t.text}; }}
QPushButton[role="primary"]:disabled {{ background: {t.border}; border-color: {t.border}; color: {t.text_faint}; }}
QPushButton[role="danger"] {{ color: {t.danger}; border-color: {t.border_strong}; }}
QPushButton[role="danger"]:hover {{ background: {t.danger_soft}; border-color: {t.danger}; }}
QPushButton[role="danger"]:disabled {{ color: {t.text_faint}; }}
QPushButton[role="ghost"] {{ background: transparent; border: 1px solid transparent; color: {t.text_muted}; padding: 0 8px; }}
QPushButton[role="ghost"]:hover {{ background: {t.hover}; color: {t.text}; }}
QPushButton[role="ghost"]:checked {{ background: {t.accent_soft}; color: {t.accent}; }}
QPushButton[role="ghost"]:focus {{ border: 1px solid {t.accent}; min-height: 30px; }}
QPushButton::menu-indicator {{ image: url("{_glyph("chevron-down")}"); width: 12px; height: 12px; right: 8px; }}
QPushButton[compact="true"] {{ min-height: 22px; font-size: 12px; padding: 0 6px; }}
QToolButton {{ background: transparent; border: 1px solid transparent; border-radius: {SPACE.radius_small}px; padding: 5px; color: {t.text_muted}; }}
QToolButton:hover {{ background: {t.hover}; color: {t.text}; }}
QToolButton:pressed {{ background: {t.pressed}; }}
QToolButton:checked {{ background: {t.accent_soft}; color: {t.accent}; }}
QToolButton:focus {{ border-color: {t.accent}; }}
QToolButton[heading="true"] {{ text-align: left; color: {t.text}; font-size: 13px; font-weight: 600; padding: 2px; }}
QToolButton[heading="true"]:checked {{ background: transparent; color: {t.text}; }}
QToolButton[heading="true"]:hover {{ background: {t.hover}; }}
QToolButton::menu-indicator {{ image: none; }}
QPushButton[segment="true"]:checked {{ background: {t.accent_soft}; color: {t.accent}; border-color: {t.accent}; }}
QPushButton[rail="true"] {{
  background: transparent; border: 1px solid transparent; color: {t.text_muted}; text-align: left; padding: 0 10px; min-height: 34px; }}
QPushButton[rail="true"]:hover {{ background: {t.hover}; color: {t.text}; }}
QPushButton[rail="true"]:checked {{ background: {t.accent_soft}; color: {t.accent}; font-weight: 600; }}
QPushButton[rail="true"]:focus {{ border: 1px solid {t.accent}; padding: 0 10px; min-height: 34px; }}
QPushButton[rail="search"] {{ text-align: left; color: {t.text_faint}; padding: 0 10px; font-weight: 400; }}
"""


def _inputs(t: Theme) -> str:
    fields = "QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox, QAbstractSpinBox"
    return f"""
{fields} {{
  background: {t.surface}; color: {t.text}; border: 1px solid {t.border_strong}; border-radius: {SPACE.radius_small}px;
  padding: 0 10px; min-height: 30px; selection-background-color: {t.accent}; selection-color: {t.on_accent}; }}
QLineEdit:hover, QAbstractSpinBox:hover, QComboBox:hover {{ border-color: {t.text_faint}; }}
QLineEdit:focus, QAbstractSpinBox:focus, QComboBox:focus {{ border: 2px solid {t.accent}; padding: 0 9px; min-height: 28px; }}
QLineEdit:disabled, QAbstractSpinBox:disabled, QComboBox:disabled {{ background: {t.sunken}; color: {t.text_faint}; border-color: {t.border}; }}
QLineEdit[invalid="true"], QAbstractSpinBox[invalid="true"], QComboBox[invalid="true"], QPlainTextEdit[invalid="true"] {{ border-color: {t.danger}; }}
QLineEdit:read-only {{ background: {t.sunken}; }}
QAbstractSpinBox QLineEdit, QComboBox QLineEdit {{ border: none; background: transparent; padding: 0 8px; min-height: 0; }}
QAbstractSpinBox QLineEdit:focus, QComboBox QLineEdit:focus {{ border: none; padding: 0 8px; min-height: 0; }}
QComboBox::drop-down {{ border: none; width: 28px; }}
QComboBox::down-arrow {{ image: url("{_glyph("chevron-down")}"); width: 14px; height: 14px; }}
QComboBox QAbstractItemView {{ background: {t.raised}; border: 1px solid {t.border_strong}; border-radius: {SPACE.radius_small}px; padding: 4px; outline: none; }}
QComboBox QAbstractItemView::item {{ min-height: 28px; padding: 0 8px; border-radius: 4px; color: {t.text}; }}
QComboBox QAbstractItemView::item:hover, QComboBox QAbstractItemView::item:selected {{ background: {t.accent_soft}; color: {t.text}; }}
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button {{ border: none; width: 22px; background: transparent; }}
QAbstractSpinBox::up-button:hover, QAbstractSpinBox::down-button:hover {{ background: {t.hover}; }}
QAbstractSpinBox::up-arrow {{ image: url("{_glyph("chevron-up")}"); width: 11px; height: 11px; }}
QAbstractSpinBox::down-arrow {{ image: url("{_glyph("chevron-down")}"); width: 11px; height: 11px; }}
QPlainTextEdit, QTextEdit, QTextBrowser {{
  background: {t.surface}; color: {t.text}; border: 1px solid {t.border}; border-radius: {SPACE.radius_small}px; padding: 6px;
  selection-background-color: {t.accent}; selection-color: {t.on_accent}; }}
QPlainTextEdit:focus, QTextEdit:focus, QTextBrowser:focus {{ border-color: {t.accent}; }}
"""


def _choices(t: Theme) -> str:
    return f"""
QCheckBox, QRadioButton {{ color: {t.text}; spacing: 8px; background: transparent; min-height: 22px; }}
QCheckBox:disabled, QRadioButton:disabled {{ color: {t.text_faint}; }}
QCheckBox::indicator, QRadioButton::indicator {{ width: 16px; height: 16px; border: 1px solid {t.border_strong}; background: {t.surface}; }}
QCheckBox::indicator {{ border-radius: 4px; }}
QRadioButton::indicator {{ border-radius: 9px; }}
QCheckBox::indicator:hover, QRadioButton::indicator:hover {{ border-color: {t.accent}; }}
QCheckBox::indicator:checked {{ background: {t.accent}; border-color: {t.accent}; image: url("{_glyph("check")}"); }}
QCheckBox::indicator:indeterminate {{ background: {t.accent}; border-color: {t.accent}; image: url("{_glyph("dash")}"); }}
QRadioButton::indicator:checked {{ background: {t.accent}; border-color: {t.accent}; image: url("{_glyph("dot")}"); }}
QCheckBox::indicator:disabled, QRadioButton::indicator:disabled {{ background: {t.sunken}; border-color: {t.border}; }}
QCheckBox:focus, QRadioButton:focus {{ color: {t.accent}; }}
QCheckBox::indicator:focus, QRadioButton::indicator:focus {{ border: 2px solid {t.accent}; }}
QSlider::groove:horizontal {{ height: 4px; background: {t.border}; border-radius: 2px; }}
QSlider::sub-page:horizontal {{ background: {t.accent}; border-radius: 2px; }}
QSlider::handle:horizontal {{ width: 14px; height: 14px; margin: -6px 0; border-radius: 8px; background: {t.surface}; border: 1px solid {t.border_strong}; }}
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus {{ border: 2px solid {t.accent}; }}
QGroupBox {{ border: 1px solid {t.border}; border-radius: {SPACE.radius}px; margin-top: 20px; padding: 12px; font-weight: 600; }}
QGroupBox::title {{ subcontrol-origin: margin; left: 4px; padding: 0 4px; }}
"""


def _items(t: Theme) -> str:
    return f"""
QTableView, QTreeView, QListView {{
  background: {t.surface}; alternate-background-color: {t.sunken}; color: {t.text}; border: 1px solid {t.border};
  border-radius: {SPACE.radius}px; gridline-color: {t.border}; outline: none; selection-background-color: {t.accent_soft};
  selection-color: {t.text}; }}
QTableView:focus, QTreeView:focus, QListView:focus {{ border-color: {t.accent}; }}
QTableView::item, QTreeView::item {{ padding: 0 8px; border: none; border-bottom: 1px solid {t.border}; }}
QListView[bare="true"] {{ border: none; background: transparent; }}
QListView::item {{ padding: 6px 8px; border-radius: {SPACE.radius_small}px; }}
QTableView::item:hover, QTreeView::item:hover, QListView::item:hover {{ background: {t.hover}; }}
QTableView::item:selected, QTreeView::item:selected, QListView::item:selected {{ background: {t.accent_soft}; color: {t.text}; }}
QHeaderView {{ background: transparent; border: none; }}
QHeaderView::section {{
  background: {t.surface}; color: {t.text_muted}; border: none; border-bottom: 1px solid {t.border}; padding: 0 8px;
  height: 34px; font-size: 12px; font-weight: 600; }}
QHeaderView::section:hover {{ color: {t.text}; background: {t.hover}; }}
QHeaderView::section:first {{ border-top-left-radius: {SPACE.radius}px; }}
QHeaderView::section:last {{ border-top-right-radius: {SPACE.radius}px; }}
QHeaderView::up-arrow {{ image: url("{_glyph("chevron-up")}"); width: 12px; height: 12px; }}
QHeaderView::down-arrow {{ image: url("{_glyph("chevron-down")}"); width: 12px; height: 12px; }}
QTableCornerButton::section {{ background: {t.surface}; border: none; }}
"""


def _bars(t: Theme) -> str:
    return f"""
QScrollBar:vertical {{ background: transparent; width: 12px; margin: 2px; }}
QScrollBar:horizontal {{ background: transparent; height: 12px; margin: 2px; }}
QScrollBar::handle {{ background: {t.border_strong}; border-radius: 4px; }}
QScrollBar::handle:vertical {{ min-height: 32px; }}
QScrollBar::handle:horizontal {{ min-width: 32px; }}
QScrollBar::handle:hover {{ background: {t.text_faint}; }}
QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QAbstractScrollArea::corner {{ background: transparent; }}
QProgressBar {{ background: {t.border}; border: none; border-radius: 3px; min-height: 6px; max-height: 6px; color: transparent; }}
QProgressBar::chunk {{ background: {t.accent}; border-radius: 3px; }}
QProgressBar[tone="success"]::chunk {{ background: {t.success}; }}
QProgressBar[tone="warning"]::chunk {{ background: {t.warning}; }}
QProgressBar[tone="danger"]::chunk {{ background: {t.danger}; }}
QStatusBar {{ background: {t.rail}; border-top: 1px solid {t.border}; color: {t.text_muted}; }}
QStatusBar::item {{ border: none; }}
"""


def _tabs(t: Theme) -> str:
    return f"""
QTabWidget::pane {{ border: none; border-top: 1px solid {t.border}; }}
QTabWidget::tab-bar {{ left: 0; }}
QTabBar {{ background: transparent; qproperty-drawBase: 0; }}
QTabBar::tab {{
  background: transparent; color: {t.text_muted}; border: none; border-bottom: 2px solid transparent;
  padding: 8px 4px; margin-right: 20px; font-weight: 500; }}
QTabBar::tab:hover {{ color: {t.text}; }}
QTabBar::tab:selected {{ color: {t.text}; border-bottom-color: {t.accent}; font-weight: 600; }}
QTabBar::tab:focus {{ color: {t.accent}; }}
"""


def _floating(t: Theme) -> str:
    return f"""
QMenu {{ background: {t.raised}; color: {t.text}; border: 1px solid {t.border_strong}; border-radius: {SPACE.radius}px; padding: 6px; }}
QMenu::item {{ padding: 6px 28px 6px 12px; border-radius: 4px; }}
QMenu::item:selected {{ background: {t.accent_soft}; }}
QMenu::item:disabled {{ color: {t.text_faint}; }}
QMenu::separator {{ height: 1px; background: {t.border}; margin: 6px 4px; }}
QMenu::icon {{ padding-left: 8px; }}
QToolTip {{ background: {t.raised}; color: {t.text}; border: 1px solid {t.border_strong}; padding: 6px 8px; }}
QWidget[floating="true"] {{ background: {t.raised}; border: 1px solid {t.border_strong}; border-radius: 10px; }}
QMessageBox {{ background: {t.surface}; }}
"""
