"""Asks a host for a sign of life, with a time limit.

A host that hangs still acknowledges packets, so neither TCP nor paramiko's keep-alive notices it: only an answer
from its SSH server tells. One question is under way at a time; a late answer serves those who ask meanwhile.
"""

from __future__ import annotations

import threading
import time
from typing import Any


class Prober:
    """Sends questions on one transport. Threads: any."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._answered: threading.Event | None = None
        self.is_answering = True

    def ask(self, timeout_s: float) -> float | None:
        """Return the seconds until the host answered; None when it did not in time or the connection ended."""
        began = time.monotonic()
        with self._lock:
            if self._answered is None:
                self._answered = threading.Event()
                threading.Thread(target=self._ask, args=(self._answered,), name="ssh-probe", daemon=True).start()
            answered = self._answered
        is_in_time = answered.wait(timeout_s)
        self.is_answering = is_in_time and bool(self._transport.is_active())
        return time.monotonic() - began if self.is_answering else None

    def _ask(self, answered: threading.Event) -> None:
        from paramiko import SSHException

        try:
            # Servers refuse what they do not know; that is an answer, too.
            self._transport.global_request("keepalive@openssh.com", wait=True)
        except (SSHException, EOFError, OSError):
            pass  # the connection ended; is_active tells
        finally:
            with self._lock:
                self._answered = None
            answered.set()
