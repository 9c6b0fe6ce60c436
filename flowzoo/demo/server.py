"""The server of the page: on 127.0.0.1 alone, for this page alone, every answer clear.

A page of another site can make a browser send requests to 127.0.0.1. Therefore a request is served only if it names
this server as its host (a name of others that was made to point here is refused), comes from this page where the
browser says where it comes from, and has a type that a foreign page cannot send without the browser asking first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowzoo.errors import FlowzooError, InputError, UnknownModel

if TYPE_CHECKING:
    from flowzoo.demo.work import Work

__all__ = ["ADDRESS", "MOST_BYTES", "DemoServer"]

ADDRESS = "127.0.0.1"
MOST_BYTES = 512 * 1024
"""The largest body of a request; two colour images of 256x256 are the most that is ever sent."""

_MOST_DISCARDED = 64 * 1024 * 1024
"""The most bytes of a refused body that are read and thrown away."""

_SECONDS = 20.0
"""How long a client may take to send its request."""


class Refused(Exception):
    """A request that is not served.

    Attributes:
        status: Of the answer.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class DemoServer(ThreadingHTTPServer):
    """Serves the page and answers its requests.

    Args:
        work: What computes the answers.
        port: The port; 0 takes a free one, see :attr:`url`.

    Raises:
        InputError: The port is taken, or may not be used.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, work: Work, port: int = 0) -> None:
        self.work = work
        self.page = files("flowzoo.demo").joinpath("page.html").read_bytes()
        self.policy = _policy(self.page.decode())
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"port {port} cannot be used: {reason}. Give another, or --port 0 for a free one."
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """What the header Host may be."""
        return frozenset(f"{name}:{self.server_port}" for name in (ADDRESS, "localhost"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps quiet about clients that went away; whatever a request did wrong was answered."""


def _policy(page: str) -> str:
    """The content security policy: the page's own script and style by their digests, nothing from elsewhere."""

    def digest(tag: str) -> str:
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        content = inside[1] if inside else ""
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {digest('script')}; style-src {digest('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: DemoServer
    server_version = "flowzoo"
    sys_version = ""
    timeout = _SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The page, and the list of models."""
        self._serve(self._get)

    def do_POST(self) -> None:
        """Everything that computes."""
        self._serve(self._post)

    _unread = 0

    def _serve(self, answer: Any) -> None:
        length = self.headers.get("Content-Length", "")
        self._unread = int(length) if re.fullmatch(r"\d{1,12}", length) else 0
        try:
            self._check_origin()
            answer()
        except Refused as refused:
            self._error(refused.status, str(refused))
        except FlowzooError as error:
            unknown = isinstance(error, UnknownModel)
            self._error(HTTPStatus.NOT_FOUND if unknown else HTTPStatus.BAD_REQUEST, str(error))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected {type(error).__name__}: {error}")

    def _check_origin(self) -> None:
        """Refuses what does not come from this page."""
        host = self.headers.get("Host", "")
        if host.lower() not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"this server is {self.server.url}, not {host[:80]!r}.")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{name}" for name in self.server.hosts}:
            raise Refused(
                HTTPStatus.FORBIDDEN, f"requests from {origin[:80]!r} are refused; open {self.server.url}."
            )
        site = self.headers.get("Sec-Fetch-Site", "none")
        if site not in ("none", "same-origin") and self.path != "/":
            raise Refused(
                HTTPStatus.FORBIDDEN, f"requests from other sites are refused; open {self.server.url}."
            )

    def _get(self) -> None:
        path = urlsplit(self.path).path
        if path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path == "/api/models":
            self._json(HTTPStatus.OK, self.server.work.models())
        elif path.removeprefix("/api/") in self.server.work.actions:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes POST with a JSON body.")
        else:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is nothing at {path[:80]!r}; the page is at /.")

    def _post(self) -> None:
        path = urlsplit(self.path).path
        action = path.removeprefix("/api/")
        body = self._body()
        if action not in self.server.work.actions or not path.startswith("/api/"):
            known = ", ".join(f"/api/{name}" for name in self.server.work.actions)
            raise Refused(
                HTTPStatus.NOT_FOUND, f"there is nothing to post to at {path[:80]!r}; there are {known}."
            )
        self._json(HTTPStatus.OK, self.server.work.do(action, body))

    def _body(self) -> dict[str, Any]:
        """The JSON object of a request."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"\d{1,12}", length):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the request has no Content-Length; send one.")
        if int(length) > MOST_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {length} bytes; at most {MOST_BYTES} are read.",
            )
        content = self.rfile.read(int(length))
        self._unread = 0
        kind = self.headers.get_content_type()
        if kind != "application/json":
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body is {kind}; expected application/json."
            )
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}.") from None
        if not isinstance(body, dict):
            raise Refused(
                HTTPStatus.BAD_REQUEST, f"the body is a {type(body).__name__}; expected a JSON object."
            )
        return body

    def _json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _error(self, status: HTTPStatus, message: str) -> None:
        # What is left of the body would be taken for the next request.
        self.close_connection = True
        self._json(status, {"error": " ".join(message.split())})
        self._discard()

    def _discard(self) -> None:
        """Reads what the client is still sending, within bounds: closing on it would destroy the answer on its way."""
        left, self._unread = min(self._unread, _MOST_DISCARDED), 0
        until = time.monotonic() + _SECONDS
        try:
            while left > 0 and time.monotonic() < until:
                found = len(self.rfile.read1(min(left, 65_536)))
                left -= found or left
        except (ConnectionError, TimeoutError):
            return

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                ("Cache-Control", "no-store"),
                ("Content-Security-Policy", self.server.policy),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("Referrer-Policy", "no-referrer"),
                ("X-Content-Type-Options", "nosniff"),
            ):
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A request that the standard library refuses, answered as every other one."""
        status = HTTPStatus(code)
        self._error(status, f"{message or status.phrase}; expected GET / or POST /api/... .")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class gives it
        """Logs nothing: the terminal is the reader's."""
