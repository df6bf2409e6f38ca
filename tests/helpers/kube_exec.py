"""Entering a pod of the stand-in: ``kubectl exec`` speaks WebSocket, here with as much of it as that needs."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import subprocess
from http.server import BaseHTTPRequestHandler
from typing import Any

_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PROTOCOL = "v5.channel.k8s.io"
_STDOUT, _STDERR, _STATUS = 1, 2, 3


def answer_exec(handler: BaseHTTPRequestHandler, words: list[str]) -> None:
    """Run a command and send what it printed and how it ended, each in its channel."""
    key = handler.headers["Sec-WebSocket-Key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_KEY).digest()).decode()
    handler.send_response(101)
    for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
        handler.send_header(name, value)
    handler.send_header("Sec-WebSocket-Accept", accept)
    handler.send_header("Sec-WebSocket-Protocol", _PROTOCOL)
    handler.end_headers()
    done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    for channel, data in ((_STDOUT, done.stdout), (_STDERR, done.stderr)):
        if data:
            _send(handler, 2, bytes([channel]) + data)
    _send(handler, 2, bytes([_STATUS]) + json.dumps(_status(done.returncode)).encode())
    _send(handler, 8, struct.pack(">H", 1000))
    handler.wfile.flush()
    handler.close_connection = True


def _status(code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    cause = {"reason": "ExitCode", "message": str(code)}
    message = f"command terminated with non-zero exit code: {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": message,
        "details": {"causes": [cause]},
    }


def _send(handler: BaseHTTPRequestHandler, opcode: int, data: bytes) -> None:
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    handler.wfile.write(bytes([0x80 | opcode]) + size + data)
