"""An HTTP stand-in for the API server of Kubernetes, for the real ``kubectl``; its pods really run (``kube_pods``).

It knows discovery, the kinds that a run has, lists by label, server-side apply (with the strict field check of the
schemas, and conflicts between field managers), deletion, logs that are followed, and access reviews. A small controller
makes pods of Jobs, JobSets and TrainJobs and replaces failed ones within ``backoffLimit``. It can be told to refuse, to
be slow, and to cut streams. It is no conformance: what only a real cluster can show is not shown here.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from tests.helpers.kube_controllers import Controllers
from tests.helpers.kube_exec import answer_exec
from tests.helpers.kube_pods import ContainerLog, Machine

Object = dict[str, Any]

GROUPS: dict[str, dict[str, str]] = {
    "v1": {
        "configmaps": "ConfigMap",
        "services": "Service",
        "pods": "Pod",
        "events": "Event",
        "secrets": "Secret",
        "namespaces": "Namespace",
        "persistentvolumeclaims": "PersistentVolumeClaim",
    },
    "batch/v1": {"jobs": "Job"},
    "authorization.k8s.io/v1": {"selfsubjectaccessreviews": "SelfSubjectAccessReview"},
    "jobset.x-k8s.io/v1alpha2": {"jobsets": "JobSet"},
    "trainer.kubeflow.org/v1alpha1": {"trainjobs": "TrainJob"},
}
_NOT_NAMESPACED = {"namespaces", "selfsubjectaccessreviews"}
_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?"
)


class Refusal(Exception):
    """An answer other than success, as a ``Status``."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


REASONS = {401: "Unauthorized", 403: "Forbidden", 409: "Conflict", 410: "Gone", 500: "InternalError"}


class KubeApi:
    """The stand-in: its objects, and what the tests do to it."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self.objects: dict[tuple[str, str], Object] = {}
        self.logs: dict[str, ContainerLog] = {}
        self.served = dict(GROUPS)
        self.requests: list[str] = []
        self.denied: set[tuple[str, str]] = set()
        self.field_owners: dict[tuple[str, str], str] = {}
        self.delay_s = 0.0
        self.is_closing = False
        self.log_cuts = 0
        self.log_stalls = 0
        self._refusals: list[tuple[re.Pattern[str], int, str, int]] = []
        self._version = 0
        network = f"127.{77 + (hash(str(folder)) % 100)}.{hash(folder.name) % 200}"
        self.machine = Machine(folder, network)
        self.controllers = Controllers(self)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    # -- for tests ----------------------------------------------------------------------------------------------------

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig whose current context ``standin`` is this server."""
        path = folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "standin",
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "standin", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
                }
            )
        )
        return path

    def refuse(self, request: str, code: int, message: str = "", times: int = 1_000_000) -> None:
        """Answer requests that match (such as ``GET .*/pods``) with a status from now on."""
        with self.lock:
            self._refusals.append((re.compile(request), code, message, times))

    def allow_all(self) -> None:
        """Refuse nothing any more."""
        with self.lock:
            self._refusals.clear()

    def cut_logs(self) -> None:
        """Cut every log stream that is open now, in the middle of a line."""
        with self.lock:
            self.log_cuts += 1

    def put(self, resource: str, body: Object) -> Object:
        """Store an object as if its owner had made it."""
        with self.lock:
            meta = body["metadata"]
            self._version += 1
            meta.setdefault("namespace", "lab")
            meta.setdefault("uid", f"uid-{self._version}")
            meta.setdefault("creationTimestamp", timestamp(time.time()))
            meta["resourceVersion"] = str(self._version)
            self.objects[resource, meta["name"]] = body
            return body

    def stall_logs(self) -> None:
        """Let every log stream that is open now bring nothing more, without closing it."""
        with self.lock:
            self.log_stalls += 1

    def rotate_logs(self, keep: int) -> None:
        """Throw away all but the last lines of every log, as a machine does with large ones."""
        for log in self.logs.values():
            with log.changed:
                log.lines = log.lines[-keep:]

    def find(self, resource: str, name: str) -> Object | None:
        """Return an object."""
        if (resource, name) == ("namespaces", "lab"):
            return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}}
        with self.lock:
            return self.objects.get((resource, name))

    def all(self, resource: str) -> list[Object]:
        """Return all objects of a resource."""
        with self.lock:
            return [one for (kind, _), one in self.objects.items() if kind == resource]

    def drop(self, resource: str, name: str) -> None:
        """Remove an object at once."""
        with self.lock:
            self.objects.pop((resource, name), None)

    def close(self) -> None:
        """Kill what runs and stop serving."""
        self.is_closing = True
        self.controllers.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- answers ------------------------------------------------------------------------------------------------------

    def check_refusals(self, request: str) -> None:
        with self.lock:
            self.requests.append(request)
            for place, (pattern, code, message, times) in enumerate(self._refusals):
                if times > 0 and pattern.search(request):
                    self._refusals[place] = (pattern, code, message, times - 1)
                    raise Refusal(code, REASONS.get(code, "Unknown"), message or f"refused with {code} by the test")

    def discover(self, path: str) -> Object | None:
        """Answer discovery; None when the path is something else."""
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            names = [group for group in self.served if "/" in group]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in names]}
        if path == "/openapi/v3":
            places = [f"api/{name}" if name == "v1" else f"apis/{name}" for name in self.served]
            return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}?hash=1"} for place in places}}
        if path.startswith("/openapi/v3/"):
            return _open_api(path.removeprefix("/openapi/v3"), self.served)
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version in self.served and path.startswith(("/api/v1", "/apis/")):
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": version,
                "resources": [_resource(name, kind) for name, kind in self.served[version].items()],
            }
        return None

    def items(self, resource: str, kind: str, version: str, query: dict[str, list[str]]) -> Object:
        """Answer a list."""
        selector = dict(part.split("=", 1) for part in query.get("labelSelector", [""])[0].split(",") if part)
        fields = dict(part.split("=", 1) for part in query.get("fieldSelector", [""])[0].split(",") if part)
        found = [
            one
            for one in self.all(resource)
            if selector.items() <= one["metadata"].get("labels", {}).items()
            and fields.get("metadata.name", one["metadata"]["name"]) == one["metadata"]["name"]
        ]
        meta = {"resourceVersion": str(self._version)}
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": meta, "items": found}

    def apply(self, resource: str, name: str, body: Object, query: dict[str, list[str]]) -> Object:
        """Answer a server-side apply."""
        manager = query.get("fieldManager", [""])[0]
        if query.get("fieldValidation") == ["Strict"] and body["kind"] in {"ConfigMap", "Service", "Job"}:
            try:
                kubernetes_validate.validate(body, "1.34", strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Refusal(400, "BadRequest", f"strict decoding error: {error.message}") from error
        with self.lock:
            old = self.objects.get((resource, name))
            owner = self.field_owners.get((resource, name), manager)
            if old is not None and owner != manager and query.get("force") != ["true"]:
                message = f'Apply failed with 1 conflict: conflict with "{owner}": .spec'
                raise Refusal(409, "Conflict", message)
            if query.get("dryRun") == ["All"]:
                return {**body, "metadata": {**body["metadata"], "uid": "dry", "resourceVersion": "0"}}
            if resource in self.controllers.refused:
                raise Refusal(
                    403, "Forbidden", f'{resource} "{name}" is forbidden: exceeded quota: count, requested: 1'
                )
            self.field_owners[resource, name] = manager
            if old is not None:
                kept = {key: old["metadata"][key] for key in ("uid", "creationTimestamp")}
                body["metadata"] |= kept
                return self.put(resource, {**body, "status": old.get("status", {})})
            made = self.put(resource, body)
        self.controllers.made(resource, made)
        return made

    def delete(self, resource: str, name: str) -> Object:
        """Answer a deletion; the rest happens in the background."""
        found = self.find(resource, name)
        if found is None:
            raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
        self.controllers.delete(resource, found)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}}

    def review(self, body: bytes) -> Object:
        """Answer whether the user may do something."""
        allowed = _asked_access(body) not in self.denied
        kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        return {**kind, "metadata": {}, "spec": {}, "status": {"allowed": allowed}}


def _group(name: str) -> Object:
    version = {"groupVersion": name, "version": name.partition("/")[2]}
    return {"name": name.partition("/")[0], "versions": [version], "preferredVersion": version}


def _open_api(place: str, served: dict[str, dict[str, str]]) -> Object:
    """Return as much of OpenAPI as tells kubectl that the server checks fields strictly."""
    name = place.removeprefix("/apis/").removeprefix("/api/")
    group, _, version = name.rpartition("/")
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    paths = {
        f"{place}/namespaces/{{namespace}}/{resource}/{{name}}": {
            "patch": {
                "parameters": [parameter],
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            }
        }
        for resource, kind in served[name].items()
    }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.34.0"}, "paths": paths}


def _asked_access(body: bytes) -> tuple[str, str]:
    """Return verb and resource of a SelfSubjectAccessReview, which kubectl sends as protobuf."""
    raw = _fields(body.removeprefix(b"k8s\0"))[2]
    attributes = _fields(_fields(_fields(raw)[2])[1])
    resource, sub = attributes[5].decode(), attributes.get(6, b"").decode()
    return attributes[2].decode(), f"{resource}/{sub}" if sub else resource


def _fields(message: bytes) -> dict[int, bytes]:
    """Return the length-delimited fields of a protobuf message."""
    found: dict[int, bytes] = {}
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        key = number()
        size = number()
        if key & 7 == 2:
            found[key >> 3] = message[place : place + size]
            place += size
    return found


def _resource(name: str, kind: str) -> Object:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    namespaced = name not in _NOT_NAMESPACED
    return {"name": name, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": verbs}


def timestamp(ts: float, *, fraction: bool = False) -> str:
    """Return Unix seconds as Kubernetes writes them."""
    moment = datetime.fromtimestamp(ts, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{f'.{moment.microsecond:06d}000' if fraction else ''}Z"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, api: KubeApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""
        del request, client_address


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        del format, args

    def _handle(self) -> None:
        api = self.server.api
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if api.delay_s:
            time.sleep(api.delay_s)
        try:
            api.check_refusals(f"{self.command} {url.path}")
            found = _PATH.fullmatch(url.path)
            if (answer := api.discover(url.path)) is None:
                if found is None or found["resource"] not in api.served.get(found["core"] or found["group"], {}):
                    raise Refusal(404, "NotFound", "the server could not find the requested resource")
                if found["sub"] == "log":
                    self._stream_log(found["name"], query)
                    return
                if found["sub"] == "exec":
                    self._enter(found["name"], query["command"])
                    return
                answer = self._answer(found, query, body)
        except Refusal as refusal:
            self._send(refusal.code, refusal.body)
        else:
            self._send(200, answer)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _handle  # noqa: N815 - the base class's names

    def _answer(self, found: re.Match[str], query: dict[str, list[str]], body: bytes) -> Object:
        api = self.server.api
        version = found["core"] or found["group"]
        resource, name = found["resource"], found["name"]
        kind = api.served[version][resource]
        if self.command == "GET" and name is None:
            return api.items(resource, kind, version, query)
        if self.command == "GET":
            one = api.find(resource, name)
            if one is None:
                raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
            return one
        if self.command == "POST" and resource == "selfsubjectaccessreviews":
            return api.review(body)
        if self.command == "PATCH":
            return api.apply(resource, name, yaml.safe_load(body), query)
        if self.command == "DELETE":
            return api.delete(resource, name)
        raise Refusal(405, "MethodNotAllowed", "the stand-in does not know that")

    def _enter(self, name: str, words: list[str]) -> None:
        pod = self.server.api.find("pods", name)
        if pod is None or pod["status"]["phase"] != "Running":
            raise Refusal(400, "BadRequest", "container not found")
        answer_exec(self, self.server.api.machine.words_inside(pod, words))

    def _send(self, code: int, answer: Object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # -- logs ---------------------------------------------------------------------------------------------------------

    def _stream_log(self, name: str, query: dict[str, list[str]]) -> None:
        api = self.server.api
        pod = api.find("pods", name)
        log = api.logs.get(pod["metadata"]["uid"]) if pod is not None else None
        if log is None:
            raise Refusal(400, "BadRequest", f'container "node" in pod "{name}" is waiting to start')
        since = query.get("sinceTime", [""])[0]
        start = datetime.fromisoformat(since).timestamp() if since else 0.0
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        cuts, stalls = api.log_cuts, api.log_stalls
        follow = query.get("follow") == ["true"]
        for line in _lines(log, start, follow, lambda: api.log_cuts != cuts):
            if line is None:
                self._chunk(b'2026-11-24T00:00:00.000000000Z @pilothouse {"type":"pie')
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            while api.log_stalls != stalls and not api.is_closing:
                time.sleep(0.05)
            self._chunk(line)
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _lines(log: ContainerLog, start: float, follow: bool, is_cut: Callable[[], bool]) -> Iterator[bytes | None]:
    """Yield a log's lines from a time on; None when the stream is to be cut."""
    place = 0
    while True:
        with log.changed:
            if place >= len(log.lines) and follow and not log.is_closed:
                log.changed.wait(0.05)
            fresh, closed = log.lines[place:], log.is_closed
        place += len(fresh)
        for ts, line in fresh:
            if ts >= start:
                yield f"{timestamp(ts, fraction=True)} ".encode() + line + b"\n"
        if is_cut():
            yield None
        if not fresh and (closed or not follow):
            return


@contextmanager
def kube_api(folder: Path) -> Iterator[KubeApi]:
    """Yield a stand-in that serves; at the end all its processes are gone."""
    api = KubeApi(folder)
    try:
        yield api
    finally:
        api.close()
