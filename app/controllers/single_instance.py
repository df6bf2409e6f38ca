"""One window per data folder: a second start asks the first to come to front and ends.

The first listens on a local socket named after the folder. A socket left over by a crash is taken over.
"""

from __future__ import annotations

import hashlib
from enum import Enum, auto
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket

_TIMEOUT_MS = 2000
_REQUEST = b"show\n"
_ANSWER = b"ok\n"


class Claim(Enum):
    """What became of the wish to be the one window."""

    FIRST = auto()
    SHOWN_OTHER = auto()
    OTHER_SILENT = auto()


class SingleInstance(QObject):
    """Holds the right to be the window of a data folder.

    Signals:
        show_wanted: Another start asked for the window.
    """

    show_wanted = Signal()

    def __init__(self, home: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:20]
        self._name = f"pilothouse-{digest}"
        self._server: QLocalServer | None = None

    def claim(self) -> Claim:
        """Become the one window, or wake the one there is. UI thread; waits at most two seconds for a silent one."""
        socket = QLocalSocket()
        socket.connectToServer(self._name)
        if socket.waitForConnected(_TIMEOUT_MS):
            socket.write(_REQUEST)
            socket.flush()
            answered = socket.waitForReadyRead(_TIMEOUT_MS)
            socket.abort()
            return Claim.SHOWN_OTHER if answered else Claim.OTHER_SILENT
        QLocalServer.removeServer(self._name)
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._on_connected)
        self._server.listen(self._name)
        return Claim.FIRST

    def release(self) -> None:
        """Give the right back."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _on_connected(self) -> None:
        if self._server is None:
            return
        socket = self._server.nextPendingConnection()
        socket.disconnected.connect(socket.deleteLater)
        socket.readyRead.connect(lambda: self._answer(socket))
        if socket.bytesAvailable():
            self._answer(socket)

    def _answer(self, socket: QLocalSocket) -> None:
        if bytes(socket.readAll().data()).startswith(_REQUEST):
            socket.write(_ANSWER)
            socket.flush()
            self.show_wanted.emit()
