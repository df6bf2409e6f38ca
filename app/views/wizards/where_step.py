"""Third step of the wizard: where the run goes and how it is spread: this computer, hosts by SSH, Slurm, Kubernetes.

It edits the form's own ``launch.*`` values. Widgets: ``where_local``, ``where_hosts``, ``where_slurm``,
``where_kubernetes``, ``where_target`` (cluster or context), ``where_to_hosts``, and ``field_<path>``.
"""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QCompleter,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app.controllers.fleet_controller import FleetController, SlurmOffer
from app.viewmodels.form_state import FormState
from app.viewmodels.host_wording import THIS_COMPUTER
from app.viewmodels.where import HOSTS_PATH, Where, fields_of, host_names, is_plain, target_path, where_of
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.field_card import FieldCard
from app.views.wizards.host_picker import HostPicker
from core.contracts.forms import FormValue
from core.contracts.hosts import LOCAL_HOST, HostRecord
from core.contracts.notices import Notice

_MAX_WIDTH = 980
_CHOICES = (
    (Where.LOCAL, "This computer", "cpu", "In the background, here."),
    (Where.HOSTS, "SSH hosts", "hosts", "On one or several machines that you reach by SSH."),
    (Where.SLURM, "Slurm", "table", "As a job of a Slurm cluster."),
    (Where.KUBERNETES, "Kubernetes", "model", "As pods of a Kubernetes cluster."),
)
_FIELDS_TITLES = {
    Where.LOCAL: "How it runs",
    Where.HOSTS: "How it is spread",
    Where.SLURM: "The job",
    Where.KUBERNETES: "The pods",
}


class WhereStep(QScrollArea):
    """Asks where. One form at a time.

    Signals:
        hosts_wanted: Go to the Hosts page.
        changed: Something was chosen by hand.
    """

    hosts_wanted = Signal()
    changed = Signal()

    def __init__(self, fleet: FleetController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fleet = fleet
        self._state: FormState | None = None
        self._where = Where.LOCAL
        self._kept: dict[Where, FormValue] = {}
        self._fields: FieldCard | None = None
        self._is_advanced = False
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWidget(self._build())
        self._hosts.hide()
        self._target_card.hide()
        fleet.loaded.connect(self._on_hosts)

    @property
    def where(self) -> Where:
        """The place that is chosen."""
        return self._where

    def problem(self) -> str:
        """Return what is missing to go on, as a sentence; empty when nothing is."""
        if self._state is None or self._where is Where.LOCAL or self._state.value(target_path(self._where)):
            return ""
        if self._where is Where.HOSTS:
            return "Choose at least one host, or this computer."
        return "Choose a cluster, or this computer." if self._where is Where.SLURM else "Choose a context."

    def show_form(self, state: FormState) -> None:
        """Ask for the run of this form."""
        if state is not self._state:
            if self._state is not None:
                self._state.loaded.disconnect(self._on_loaded)
                self._state.problems_changed.disconnect(self._on_problems)
            self._state = state
            self._kept = {}
            state.loaded.connect(self._on_loaded)
            state.problems_changed.connect(self._on_problems)
            self._where = where_of(state.values())
            self._show_where()
        self._fleet.start()
        self._picker.ask_gpus()

    def set_advanced(self, *, advanced: bool) -> None:
        """Show or hide the advanced fields."""
        self._is_advanced = advanced
        if self._fields is not None:
            self._fields.arrange(advanced=advanced)

    def focus_first(self) -> None:
        """Put the focus on the chosen place."""
        self._buttons[self._where].setFocus(Qt.FocusReason.TabFocusReason)

    def focus_field(self, path: str) -> None:
        """Put the focus into a field."""
        row = self._fields.rows.get(path) if self._fields is not None else None
        if row is None:
            self.focus_first()
            return
        row.set_visible(visible=True)
        row.editor.input().setFocus(Qt.FocusReason.OtherFocusReason)
        QTimer.singleShot(0, self, lambda: self.ensureWidgetVisible(row.holder, 0, 120))

    # -- building --------------------------------------------------------------------------------------------------

    def _build(self) -> QWidget:
        inner = QWidget()
        inner.setObjectName("scroll_body")
        centred = QHBoxLayout(inner)
        centred.setContentsMargins(0, 0, SPACE.s, SPACE.m)
        column = QWidget()
        column.setMaximumWidth(_MAX_WIDTH)
        self._stack = QVBoxLayout(column)
        self._stack.setContentsMargins(0, 0, 0, 0)
        self._stack.setSpacing(SPACE.m)
        self._stack.addLayout(self._build_choices())
        self._sentence = QLabel()
        set_kind(self._sentence, "muted")
        self._stack.addWidget(self._sentence)
        self._stack.addWidget(self._build_hosts())
        self._stack.addWidget(self._build_target())
        self._place = QVBoxLayout()
        self._stack.addLayout(self._place)
        self._stack.addStretch(1)
        centred.addWidget(column, 1)
        centred.addStretch(0)
        return inner

    def _build_choices(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        self._buttons: dict[Where, QPushButton] = {}
        group = QButtonGroup(self)
        for where, title, icon_name, sentence in _CHOICES:
            button = QPushButton(title)
            button.setObjectName(f"where_{where.value}")
            button.setIcon(icon(icon_name))
            button.setCheckable(True)
            button.setProperty("segment", True)
            button.setToolTip(sentence)
            button.setAccessibleDescription(sentence)
            button.clicked.connect(lambda _=False, where=where: self._on_where(where))
            group.addButton(button)
            self._buttons[where] = button
            row.addWidget(button)
        row.addStretch(1)
        return row

    def _build_hosts(self) -> QWidget:
        self._hosts = Card("Hosts")
        to_hosts = QPushButton("Manage hosts")
        to_hosts.setObjectName("where_to_hosts")
        set_role(to_hosts, "ghost")
        to_hosts.clicked.connect(self.hosts_wanted)
        self._hosts.title_row.addWidget(to_hosts)
        self._picker = HostPicker(self._fleet)
        self._picker.changed.connect(self._on_picked)
        self._no_hosts = EmptyState(
            "hosts",
            "No hosts yet",
            "Add any machine that you reach by SSH; nothing needs to be installed there.",
            "Add",
        )
        self._no_hosts.button.setText("Go to Hosts")
        self._no_hosts.triggered.connect(self.hosts_wanted)
        self._host_stack = QStackedWidget()
        self._host_stack.addWidget(self._no_hosts)
        self._host_stack.addWidget(self._picker)
        self._hosts.body.addWidget(self._host_stack)
        return self._hosts

    def _build_target(self) -> QWidget:
        self._target_card = Card("Cluster")
        row = QHBoxLayout()
        row.setSpacing(SPACE.m)
        self._target_label = QLabel()
        self._target = QComboBox()
        self._target.setObjectName("where_target")
        self._target.setMinimumWidth(280)
        self._target.activated.connect(self._on_target)
        self._target_label.setBuddy(self._target)
        row.addWidget(self._target_label)
        row.addWidget(self._target)
        row.addStretch(1)
        self._target_card.body.addLayout(row)
        self._target_note = QLabel()
        self._target_note.setObjectName("where_note")
        self._target_note.setWordWrap(True)
        self._target_note.setTextFormat(Qt.TextFormat.PlainText)
        set_kind(self._target_note, "caption")
        self._target_card.body.addWidget(self._target_note)
        return self._target_card

    # -- showing ---------------------------------------------------------------------------------------------------

    def _show_where(self) -> None:
        state, where = self._state, self._where
        if state is None:
            return
        for each, button in self._buttons.items():
            button.setChecked(each is where)
        self._sentence.setText(next(sentence for each, _, _, sentence in _CHOICES if each is where))
        self._hosts.setVisible(where is Where.HOSTS)
        self._target_card.setVisible(where in {Where.SLURM, Where.KUBERNETES})
        self._show_hosts()
        if where in {Where.SLURM, Where.KUBERNETES}:
            self._show_targets()
        self._show_fields()

    def _show_hosts(self) -> None:
        state = self._state
        if state is None:
            return
        self._picker.set_hosts(self._fleet.hosts)
        self._picker.set_chosen(host_names(state.values()), spans_nodes=state.info.spans_nodes)
        self._host_stack.setCurrentIndex(1 if self._fleet.hosts else 0)

    def _show_fields(self) -> None:
        state = self._state
        if state is None:
            return
        if self._fields is not None:
            self._place.removeWidget(self._fields)
            self._fields.hide()
            self._fields.deleteLater()
        paths = fields_of(self._where, tuple(field.path for field in state.info.fields))
        found = [field for path in paths if (field := state.field(path)) is not None]
        one_node = {"launch.min_nodes", "launch.max_restarts", "launch.slurm.nodes", "launch.kubernetes.nodes"}
        fields = [
            replace(field, advanced=not is_plain(field.path))
            for field in found
            if state.info.spans_nodes or field.path not in one_node
        ]
        self._fields = FieldCard(_FIELDS_TITLES[self._where], fields, state)
        self._place.addWidget(self._fields)
        self._fields.arrange(advanced=self._is_advanced)

    def _show_targets(self) -> None:
        is_slurm = self._where is Where.SLURM
        self._target_label.setText("Cluster" if is_slurm else "Context")
        self._target.setAccessibleName("Slurm cluster" if is_slurm else "Kubernetes context")
        if is_slurm:
            names = [record.name for record in self._fleet.hosts if record.is_slurm]
            self._fill_target([(name, name) for name in names] + [(THIS_COMPUTER, LOCAL_HOST)])
            self._say_target("A host takes jobs once “Slurm takes jobs here” is ticked for it under Hosts.")
        else:
            self._fill_target([])
            self._say_target("Reading the contexts of your kubeconfig…")
            self._fleet.ask(lambda fleet: fleet.kubernetes_contexts()).succeeded(self._on_contexts).failed(
                self._on_target_failed
            ).start(may_wait=True)
        self._ask_about_target()

    def _fill_target(self, items: list[tuple[str, str]]) -> None:
        chosen = str(self._state.value(target_path(self._where)) or "") if self._state is not None else ""
        self._target.clear()
        self._target.addItem("Choose…", "")
        for title, value in items:
            self._target.addItem(title, value)
        if chosen and self._target.findData(chosen) < 0:
            self._target.addItem(chosen, chosen)
        self._target.setCurrentIndex(max(self._target.findData(chosen), 0))

    def _say_target(self, text: str) -> None:
        self._target_note.setText(text)
        self._target_note.setVisible(bool(text))

    def _ask_about_target(self) -> None:
        name = str(self._target.currentData() or "")
        if self._where is Where.SLURM and name:
            self._say_target("Asking Slurm for its partitions…")
            self._fleet.slurm_offer(name).succeeded(self._on_offer).failed(self._on_target_failed).start(may_wait=True)

    # -- hands -----------------------------------------------------------------------------------------------------

    def _on_where(self, where: Where) -> None:
        state = self._state
        if state is None or where is self._where:
            return
        # What was chosen for the other places is put aside, so that going back finds it.
        for each in (Where.HOSTS, Where.SLURM, Where.KUBERNETES):
            path = target_path(each)
            if each is not where and state.value(path):
                self._kept[each] = state.value(path)
                state.set_value(path, [] if each is Where.HOSTS else "")
        self._where = where
        if where in self._kept:
            state.set_value(target_path(where), self._kept.pop(where))
        self._show_where()
        self.changed.emit()

    def _on_picked(self, names: list[str]) -> None:
        if self._state is not None:
            self._state.set_value(HOSTS_PATH, list(names))
            self.changed.emit()

    def _on_target(self, _index: int) -> None:
        if self._state is not None:
            self._state.set_value(target_path(self._where), str(self._target.currentData() or ""))
            self._ask_about_target()
            self.changed.emit()

    def _on_contexts(self, contexts: tuple[str, ...]) -> None:
        if self._where is Where.KUBERNETES:
            self._fill_target([(name, name) for name in contexts])
            self._say_target("" if contexts else "There is no kubeconfig here, or it names no context.")

    def _on_offer(self, offer: SlurmOffer) -> None:
        if self._where is Where.SLURM:
            self._say_target(offer.text)
            names = {"partition": offer.partitions, "account": offer.accounts, "qos": offer.qos}
            for field, known in names.items():
                row = self._fields.rows.get(f"launch.slurm.{field}") if self._fields is not None else None
                edit = row.editor.input() if row is not None else None
                if known and isinstance(edit, QLineEdit):
                    edit.setCompleter(QCompleter(list(known), edit))

    def _on_target_failed(self, notice: Notice) -> None:
        self._say_target(f"{notice.message} {notice.hint}".strip())

    def _on_hosts(self, _hosts: tuple[HostRecord, ...]) -> None:
        self._show_hosts()
        if self._where is Where.SLURM:
            self._show_targets()

    def _on_loaded(self) -> None:
        if self._state is not None:
            self._where = where_of(self._state.values())
            self._kept = {}
            self._show_where()

    def _on_problems(self) -> None:
        if self._fields is not None:
            self._fields.read_problems(advanced=self._is_advanced)
