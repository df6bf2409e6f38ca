"""A background call as a value: ``Op(fn).succeeded(show).failed(complain).start()``.

``fn`` runs on a thread of the pool and touches no widget; the callbacks run on the UI thread, each at most once, and not
at all when the object whose method they are has been destroyed or the op was cancelled. An error without a ``failed``
callback becomes a notice; one that nobody foresaw becomes a crash report as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, cast

from PySide6.QtCore import QObject, Qt, QThreadPool, Signal, Slot
from shiboken6 import isValid

from app.controllers.notices import bridge
from core.contracts.errors import Cancelled
from core.contracts.notices import Notice

T = TypeVar("T")

MAX_WAITING = 96
"""Calls that may wait at once: one for each host that is looked at, and then some."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: object = None
    error: BaseException | None = None


class _Courier(QObject):
    """Lives on the UI thread and hands the outcome over there."""

    arrived = Signal(object)

    def __init__(self, receive: Callable[[_Outcome], None]) -> None:
        super().__init__()
        self._receive = receive
        self.arrived.connect(self._on_arrived, Qt.ConnectionType.QueuedConnection)

    @Slot(object)
    def _on_arrived(self, outcome: _Outcome) -> None:
        self._receive(outcome)


class Op(Generic[T]):
    """One background call. Build, add callbacks and start it on the UI thread."""

    def __init__(self, fn: Callable[[], T]) -> None:
        self._fn = fn
        self._on_success: Callable[[T], object] | None = None
        self._on_failure: Callable[[Notice], object] | None = None
        self._on_finish: Callable[[], object] | None = None
        self._is_cancelled = False
        self._courier: _Courier | None = None

    def succeeded(self, callback: Callable[[T], object]) -> Self:
        """Call ``callback(value)`` when ``fn`` returned."""
        self._on_success = callback
        return self

    def failed(self, callback: Callable[[Notice], object]) -> Self:
        """Call ``callback(notice)`` when ``fn`` raised, instead of posting the notice."""
        self._on_failure = callback
        return self

    def finished(self, callback: Callable[[], object]) -> Self:
        """Call ``callback()`` after success, failure or a ``Cancelled`` raised by ``fn``."""
        self._on_finish = callback
        return self

    def start(self, *, may_wait: bool = False) -> Self:
        """Begin; returns at once. ``may_wait``: it may take minutes, on another host or for an answer."""
        self._courier = _Courier(self._on_arrived)
        _live.add(self)
        # A callable, not a QRunnable of ours: the pool then owns what it runs until it is done with it.
        (_waiting_pool() if may_wait else QThreadPool.globalInstance()).start(self._work)
        return self

    def cancel(self) -> None:
        """Call no callback any more, and do not begin where ``fn`` has not begun; else it runs to its end."""
        self._is_cancelled = True

    @property
    def is_live(self) -> bool:
        """True from ``start`` until the outcome has been delivered."""
        return self in _live

    def _work(self) -> None:
        courier = self._courier
        if courier is None:
            return
        try:
            outcome = _Outcome() if self._is_cancelled else _Outcome(value=self._fn())
        except Exception as error:  # noqa: BLE001 - the top frame of a background call: everything is reported
            outcome = _Outcome(error=error)
        courier.arrived.emit(outcome)

    def _on_arrived(self, outcome: _Outcome) -> None:
        self._let_go()
        if self._is_cancelled:
            return
        if outcome.error is None:
            _call(self._on_success, cast("T", outcome.value))
        elif not isinstance(outcome.error, Cancelled):
            self._report(outcome.error)
        _call(self._on_finish)

    def _report(self, error: BaseException) -> None:
        notice = bridge().notice_of(error)
        if self._on_failure is None:
            bridge().post(notice)
        else:
            _call(self._on_failure, notice)

    def _let_go(self) -> None:
        _live.discard(self)
        self._courier = None


_live: set[Op[Any]] = set()
_waiting: list[QThreadPool] = []


def _waiting_pool() -> QThreadPool:
    if not _waiting:
        pool = QThreadPool()
        pool.setMaxThreadCount(MAX_WAITING)
        pool.setExpiryTimeout(1000)
        _waiting.append(pool)
    return _waiting[0]


def wait_for_ops(timeout_ms: int = 5000) -> bool:
    """Wait until no background call runs, at most ``timeout_ms`` for each pool; when the application quits."""
    done = [pool.waitForDone(timeout_ms) for pool in (QThreadPool.globalInstance(), *_waiting)]
    return all(done)


def _call(callback: Callable[..., object] | None, *values: object) -> None:
    if callback is None:
        return
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, QObject) and not isValid(owner):
        return
    callback(*values)
