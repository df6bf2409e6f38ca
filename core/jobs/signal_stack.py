"""Keeps this thread's alternate signal stack where it was while OpenVINO works.

OpenVINO's CPU plug-in gives the thread that loads it a signal stack of its own, and unmaps that memory when the plug-in
is let go of, on whatever thread that happens. Where it is another thread, or plug-ins are let go of in another order,
the first thread is left with a stack that is gone: the next signal with a Python handler (SIGTERM from a stop, SIGCHLD
under a data loader) then kills the process without a word. Seen with OpenVINO 2026.4 on Linux; elsewhere this does
nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Generator

_SS_ONSTACK = 1


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux's ``sigaltstack(2)``."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextlib.contextmanager
def own_signal_stack() -> Generator[None]:
    """Put this thread's alternate signal stack back at the end, whatever was put in its place meanwhile."""
    if sys.platform != "linux":
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        # The kernel refuses the flag that it reports while a handler runs on the stack.
        before.flags &= ~_SS_ONSTACK
        sigaltstack(ctypes.byref(before), None)
