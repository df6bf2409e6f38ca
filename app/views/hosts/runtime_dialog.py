"""Choose the Python environment of a host: one that Pilothouse makes, or one of the user's own.

Widgets: ``runtime_managed``, ``runtime_own``, ``runtime_backend``, ``runtime_python``, ``runtime_prelude``,
``runtime_wrapper``, ``runtime_extra_<name>`` (such as ``runtime_extra_train``).
"""

from __future__ import annotations

import shlex

import msgspec
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from app.views.dialogs.work_dialog import WorkDialog, caption, form_layout
from app.views.theme import SPACE, mono_font
from core.contracts.hosts import RuntimeRecord

EXTRAS = (
    ("train", "Training", "PyTorch, torchvision, accelerate and what reads data"),
    ("compress", "Compressing", "OpenVINO, NNCF and ONNX Runtime"),
    ("infer", "Measuring", "ONNX Runtime and OpenVINO"),
)
BACKENDS = (
    ("auto", "What fits the host's driver"),
    ("cpu", "Processor only"),
    ("cu126", "CUDA 12.6"),
    ("cu128", "CUDA 12.8"),
    ("cu130", "CUDA 13.0"),
    ("rocm6.4", "ROCm 6.4"),
    ("xpu", "Intel GPUs"),
)


class RuntimeDialog(WorkDialog):
    """Ends with Accepted and ``choice`` as what to set up."""

    def __init__(self, host: str, runtime: RuntimeRecord, parent: QWidget) -> None:
        super().__init__(f"Set up {host}", "Which Python environment shall runs use there?", "Set up", parent)
        self.setObjectName("runtime_dialog")
        self._old = runtime
        self.choice: RuntimeRecord | None = None
        self._managed, self._managed_form = self._build_managed()
        self._own, self._own_form = self._build_own()
        group = QButtonGroup(self)
        for button in (self._managed, self._own):
            group.addButton(button)
            button.toggled.connect(self._show_forms)
        self._build_common()
        (self._own if runtime.kind == "interpreter" else self._managed).setChecked(True)
        self._show_forms()

    def accept(self) -> None:
        """Take what was chosen; says what is wrong instead."""
        try:
            wrapper = tuple(shlex.split(self._wrapper.text()))
        except ValueError:
            self.say("The wrapper's quotes do not match.", is_wrong=True)
            return
        prelude = tuple(line.rstrip() for line in self._prelude.toPlainText().splitlines() if line.strip())
        python = self._python.text().strip()
        if self._own.isChecked() and not python:
            self.say("Enter the interpreter's path on the host.", is_wrong=True)
            return
        kind = "interpreter" if self._own.isChecked() else "managed"
        same = self._old.kind == kind
        self.choice = msgspec.structs.replace(
            self._old if same else RuntimeRecord(),
            kind=kind,
            python=python if kind == "interpreter" else (self._old.python if same else ""),
            torch_backend=str(self._backend.currentData()),
            extras=self._chosen_extras() if kind == "managed" else (),
            prelude=prelude,
            wrapper=wrapper if kind == "interpreter" else (),
        )
        super().accept()

    def _build_managed(self) -> tuple[QRadioButton, QWidget]:
        button = QRadioButton("Make one with Pilothouse")
        button.setObjectName("runtime_managed")
        self.column.addWidget(button)
        box, form = _indented()
        self._backend = QComboBox()
        self._backend.setObjectName("runtime_backend")
        self._backend.setAccessibleName("PyTorch for")
        for key, words in BACKENDS:
            self._backend.addItem(words if key == "auto" else f"{words} ({key})", key)
        known = self._backend.findData(self._old.torch_backend)
        if known < 0:
            self._backend.addItem(self._old.torch_backend, self._old.torch_backend)
            known = self._backend.count() - 1
        self._backend.setCurrentIndex(known)
        form.addRow("PyTorch for", self._backend)
        self._extras = {key: self._extra_box(key, title, holds) for key, title, holds in EXTRAS}
        row = QHBoxLayout()
        row.setSpacing(SPACE.m)
        for extra in self._extras.values():
            row.addWidget(extra)
        row.addStretch(1)
        form.addRow("Holds what is for", row)
        form.addRow(caption("Made below the work folder, some gigabytes with CUDA; nothing else there is touched."))
        self.column.addWidget(box)
        return button, box

    def _extra_box(self, key: str, title: str, holds: str) -> QCheckBox:
        box = QCheckBox(title)
        box.setObjectName(f"runtime_extra_{key}")
        box.setToolTip(holds)
        had_any = self._old.kind == "managed"
        box.setChecked(key in self._old.extras if had_any else key == "train")
        return box

    def _chosen_extras(self) -> tuple[str, ...]:
        chosen = [key for key, box in self._extras.items() if box.isChecked()]
        return (
            *chosen,
            *(extra for extra in self._old.extras if extra not in self._extras),
        )  # kept: from the command line

    def _build_own(self) -> tuple[QRadioButton, QWidget]:
        button = QRadioButton("Use one that is there")
        button.setObjectName("runtime_own")
        self.column.addWidget(button)
        box, form = _indented()
        self._python = QLineEdit(self._old.python if self._old.kind == "interpreter" else "")
        self._python.setObjectName("runtime_python")
        self._python.setAccessibleName("Interpreter")
        self._python.setPlaceholderText("/opt/conda/envs/train/bin/python")
        form.addRow("Interpreter", self._python)
        self._wrapper = QLineEdit(shlex.join(self._old.wrapper))
        self._wrapper.setObjectName("runtime_wrapper")
        self._wrapper.setAccessibleName("Container or other wrapper")
        self._wrapper.setPlaceholderText("apptainer exec --nv image.sif")
        form.addRow("Run inside", self._wrapper)
        form.addRow(caption("It is never changed; Pilothouse's own package is put beside it."))
        self.column.addWidget(box)
        return button, box

    def _build_common(self) -> None:
        form = form_layout()
        self._prelude = QPlainTextEdit("\n".join(self._old.prelude))
        self._prelude.setObjectName("runtime_prelude")
        self._prelude.setAccessibleName("Lines before Python starts")
        self._prelude.setPlaceholderText("module load cuda/12.8")
        self._prelude.setTabChangesFocus(True)
        self._prelude.setFont(mono_font(12))
        self._prelude.setFixedHeight(72)
        form.addRow("Before it starts", self._prelude)
        form.addRow(caption("Lines for bash, such as module or conda commands; usually none."))
        self.column.addLayout(form)

    def _show_forms(self) -> None:
        self._managed_form.setEnabled(self._managed.isChecked())
        self._own_form.setEnabled(self._own.isChecked())
        self.say("")


def _indented() -> tuple[QWidget, QFormLayout]:
    box = QWidget()
    outer = QVBoxLayout(box)
    outer.setContentsMargins(SPACE.l, 0, 0, 0)
    form = form_layout()
    outer.addLayout(form)
    return box, form
