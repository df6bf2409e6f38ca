"""A server of WebHDFS's REST interface, the part that reading needs, with its redirect to a data node."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class HdfsServer:
    """What is served: files by absolute path."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    is_forbidden: bool = False

    def forbid(self) -> None:
        """Refuse everything from now on."""
        self.is_forbidden = True

    def inside(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        below = [name[len(folder) :].strip("/") for name in self.files if name.startswith(f"{folder}/")]
        return sorted({name.split("/")[0] for name in below})

    def status(self, path: str, suffix: str = "") -> dict[str, Any]:
        """Return a file's or folder's status record."""
        kind = "FILE" if path in self.files else "DIRECTORY"
        length = len(self.files.get(path, b""))
        return {"pathSuffix": suffix, "type": kind, "length": length, "modificationTime": 1}


class _Handler(BaseHTTPRequestHandler):
    served: HdfsServer

    def log_message(self, *args: Any) -> None:
        del args

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, told: dict[str, Any]) -> None:
        self._send(status, json.dumps(told).encode(), **{"Content-Type": "application/json"})

    def _fail(self, status: int, kind: str) -> None:
        self._json(status, {"RemoteException": {"exception": kind, "message": kind, "javaClassName": kind}})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name.lower(): values[0] for name, values in parse_qs(url.query).items()}
        path = "/" + url.path.removeprefix("/webhdfs/v1").strip("/")
        if self.served.is_forbidden:
            self._fail(403, "AccessControlException")
        elif path not in self.served.files and not self.served.inside(path):
            self._fail(404, "FileNotFoundException")
        elif query["op"] == "GETFILESTATUS":
            self._json(200, {"FileStatus": self.served.status(path)})
        elif query["op"] == "LISTSTATUS":
            listed = [self.served.status(f"{path}/{name}", name) for name in self.served.inside(path)]
            self._json(200, {"FileStatuses": {"FileStatus": listed or [self.served.status(path)]}})
        elif "node" not in query:
            self._send(307, b"", Location=f"http://{self.headers['Host']}{self.path}&node=1")
        else:
            content = self.served.files[path][int(query.get("offset", 0)) :]
            self._send(200, content[: int(query.get("length", len(content)))])


@contextlib.contextmanager
def hdfs_server(files: dict[str, bytes]) -> Iterator[HdfsServer]:
    """Serve files at ``webhdfs://127.0.0.1:<port>`` while the context lasts."""
    served = HdfsServer(files=files)
    handler = type("Handler", (_Handler,), {"served": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"webhdfs://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
