"""A Hugging Face Hub on loopback, for tests: serves repositories, takes uploads, breaks on demand.

Standard library only. It speaks as much of the Hub's protocol as the real client uses to download a
pinned file and to publish a model, and it records every request and every byte of a body that it sent.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+?)(/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_UPLOAD = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit)/(?P<revision>[^/]+)")
_LFS_BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_CHUNK = 64 * 1024


@dataclass
class Fault:
    """Something that goes wrong with the requests it matches.

    Attributes:
        method: ``"GET"``, ``"HEAD"``, ... or ``"*"``.
        path: What the path has to contain.
        times: How often it happens; None for ever.
        status: Answer with this status instead.
        headers: Further headers of that answer.
        body: Send this body, under the headers of the right one or with ``status``.
        cut_at: Close the connection when this many bytes of the body are sent.
        reset: Break the connection off instead of closing it.
        endless: Send a body without a length that never ends.
        seconds_per_chunk: Wait this long before every 64 KiB of the body.
    """

    method: str = "*"
    path: str = "/resolve/"
    times: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_at: int | None = None
    reset: bool = False
    endless: bool = False
    seconds_per_chunk: float = 0.0


@dataclass
class Request:
    """A request as it came in, and how many bytes of body went out for it."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


class HubServer:
    """The server; use as a context manager. Every method is safe to call while it runs."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self.heads: dict[str, str] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.large = ".safetensors"
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Goes away; new connections are refused from now on."""
        self._http.shutdown()
        self._http.server_close()

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speaks https from now on."""
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def add(self, repo: str, files: dict[str, bytes], revision: str | None = None) -> str:
        """Commits files on top of what a repository holds; returns the commit."""
        with self.lock:
            head = self.heads.get(repo)
            content = dict(self.commits.get((repo, head), {}) if head else {}) | files
            digest = hashlib.sha1(repr((repo, head, sorted(content.items()))).encode()).hexdigest()
            self.heads[repo] = revision or digest
            self.commits[repo, self.heads[repo]] = content
            return self.heads[repo]

    def fault(self, **what: Any) -> Fault:
        """Arranges for something to go wrong."""
        self.faults.append(Fault(**what))
        return self.faults[-1]

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that strikes this request, if any; uses it up once."""
        with self.lock:
            for fault in self.faults:
                if fault.method in ("*", method) and fault.path in path and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def files(self, repo: str, revision: str) -> dict[str, bytes] | str:
        """A commit's files, or the Hub's code for what does not exist."""
        if repo not in self.heads:
            return "RepoNotFound"
        return self.commits.get(
            (repo, self.heads[repo] if revision == "main" else revision), "RevisionNotFound"
        )

    def count(self, method: str) -> int:
        """Number of requests with this method so far."""
        return sum(request.method == method for request in self.requests)

    @property
    def bytes_sent(self) -> int:
        """Bytes of downloaded bodies so far."""
        return sum(request.sent for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing: requests are recorded instead."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        self.serve(self.read)

    def do_GET(self) -> None:
        self.serve(self.read)

    def do_POST(self) -> None:
        self.serve(self.write)

    def do_PUT(self) -> None:
        self.serve(self.write)

    def serve(self, answer: Callable[[str, Fault | None], None]) -> None:
        path = unquote(urlsplit(self.path).path)
        self.record = Request(self.command, path, {k.lower(): v for k, v in self.headers.items()})
        self.hub.requests.append(self.record)
        fault = self.hub.fault_for(self.command, path)
        if fault and fault.status is not None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.reply(fault.status, fault.body or b"out of order", fault.headers)
        else:
            answer(path, fault)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def missing(self, code: str) -> None:
        self.reply(404, b"", {"X-Error-Code": code})

    def read(self, path: str, fault: Fault | None) -> None:
        if match := _RESOLVE.fullmatch(path):
            files = self.hub.files(match["repo"], match["revision"])
            if isinstance(files, str):
                self.missing(files)
            elif match["file"] not in files:
                self.missing("EntryNotFound")
            else:
                self.send_file(files[match["file"]], match, fault)
        elif match := _TREE.fullmatch(path) or _INFO.fullmatch(path):
            self.describe(match["repo"], match["revision"] or "main", tree="/tree/" in path)
        else:
            self.missing("RepoNotFound")

    def describe(self, repo: str, revision: str, *, tree: bool) -> None:
        files = self.hub.files(repo, revision)
        if isinstance(files, str):
            self.missing(files)
        elif tree:
            oids = {name: hashlib.sha1(body).hexdigest() for name, body in files.items()}
            self.json(
                [
                    {"type": "file", "oid": oids[name], "size": len(body), "path": name}
                    for name, body in files.items()
                ]
            )
        else:
            sha = self.hub.heads[repo] if revision == "main" else revision
            self.json({"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]})

    def send_file(self, content: bytes, match: re.Match[str], fault: Fault | None) -> None:
        revision = self.hub.heads[match["repo"]] if match["revision"] == "main" else match["revision"]
        body = content if fault is None or fault.body is None else fault.body
        status, start, headers = 200, 0, {"Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.send_response(status)
        headers |= {"Content-Length": str(len(body) - start), "X-Repo-Commit": revision}
        headers |= {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        headers |= fault.headers if fault else {}
        endless = fault is not None and fault.endless and self.command == "GET"
        if endless:
            del headers["Content-Length"]
            headers["Transfer-Encoding"] = "chunked"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if endless:
            self.send_for_ever()
        elif self.command == "GET":
            self.send_body(body, start, fault)

    def send_for_ever(self) -> None:
        while True:  # until the client hangs up
            self.wfile.write(b"%x\r\n%s\r\n" % (_CHUNK, bytes(_CHUNK)))
            self.record.sent += _CHUNK

    def send_body(self, body: bytes, start: int, fault: Fault | None) -> None:
        end = len(body) if fault is None or fault.cut_at is None else min(len(body), fault.cut_at)
        for begin in range(start, end, _CHUNK):
            if fault and fault.seconds_per_chunk:
                time.sleep(fault.seconds_per_chunk)
            piece = body[begin : min(begin + _CHUNK, end)]
            self.wfile.write(piece)
            self.record.sent += len(piece)
        if end < len(body):
            self.close_connection = True
        if fault and fault.reset:
            time.sleep(0.1)  # or the reset would overtake what was sent
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def write(self, path: str, fault: Fault | None) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/repos/create":
            asked = json.loads(data)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in self.hub.heads:
                # The client reads the address from the refusal, as the Hub sends it.
                self.reply(409, json.dumps({"url": f"{self.hub.url}/{repo}"}).encode())
                return
            self.hub.add(repo, {".gitattributes": b""})
            self.json({"url": f"{self.hub.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif match := _UPLOAD.fullmatch(path):
            self.upload(match["repo"], match["what"], data)
        elif _LFS_BATCH.fullmatch(path):
            self.json(
                {
                    "transfer": "basic",
                    "objects": [_lfs_action(self.hub, o) for o in json.loads(data)["objects"]],
                }
            )
        elif path.startswith("/lfs/"):
            self.hub.blobs[hashlib.sha256(data).hexdigest()] = data
            self.reply(200, b"")
        else:
            self.missing("RepoNotFound")

    def upload(self, repo: str, what: str, data: bytes) -> None:
        if repo not in self.hub.heads:
            self.missing("RepoNotFound")
        elif what == "preupload":
            asked = json.loads(data)["files"]
            modes = {f["path"]: "lfs" if f["path"].endswith(self.hub.large) else "regular" for f in asked}
            self.json(
                {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]}
            )
        else:
            lines = [json.loads(line) for line in data.splitlines() if line.strip()]
            oid = self.hub.add(repo, dict(filter(None, (_committed(self.hub, line) for line in lines))))
            self.json({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "success": True})


def _lfs_action(hub: HubServer, asked: dict[str, Any]) -> dict[str, Any]:
    href = f"{hub.url}/lfs/{asked['oid']}"
    return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": {"href": href, "header": {}}}}


def _committed(hub: HubServer, line: dict[str, Any]) -> tuple[str, bytes] | None:
    value = line["value"]
    if line["key"] == "file":
        return value["path"], base64.b64decode(value["content"])
    if line["key"] == "lfsFile":
        return value["path"], hub.blobs[value["oid"]]
    return None


@contextlib.contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request's first bytes and then does as it likes with the connection."""

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            answer(connection)

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
