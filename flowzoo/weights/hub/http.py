"""One GET with an end: bounds on the time, the redirects, the headers and the body that a server may spend.

Written on the standard library because the Hub's client takes file names from a server's headers, reads error
bodies whole, and waits as long as a server tells it to.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from flowzoo.atomic import write_all
from flowzoo.errors import IntegrityError

__all__ = ["PATIENCE", "Announced", "Interrupted", "Refused", "TooSlow", "Transfer", "inspect", "receive"]

PATIENCE = 30.0
"""Seconds that the way to the first byte may take, and then each further piece of the body."""
SILENCE = 10.0
"""Seconds without any byte after which a connection counts as broken."""
PIECE = 128 * 1024
"""Bytes that have to arrive within :data:`PATIENCE`: about 4 kB a second."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5


class Refused(Exception):
    """The server answered with an error; nothing of its text is kept, since it may echo what it was sent."""

    def __init__(self, status: int, code: str, retry_after: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.code = code
        self.retry_after = int(retry_after) if re.fullmatch(r"[0-9]{1,9}", retry_after) else None


class Interrupted(Exception):
    """The connection failed or ended early; asking again may help."""


class TooSlow(Exception):
    """The server kept the connection alive and sent next to nothing; asking again would take as long."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file to be fetched, and what its server has to say about it.

    Attributes:
        url: Where it is.
        what: Its name in error messages.
        max_bytes: Most bytes that are taken.
        size: Its exact length if that is known.
        revision: The commit that the server has to answer for.
        token: Secret for the server of ``url``; no other is told it.
    """

    url: str
    what: str
    max_bytes: int
    size: int | None
    revision: str
    token: str | None


@dataclass(frozen=True, slots=True)
class Announced:
    """The facts about a file that a server tells without sending it; nothing of them is trusted.

    Attributes:
        revision: The commit that it answers for; empty if it names none.
        digest: The file's SHA-256 if it is stored as a large file, else some other mark; empty if it names none.
        size: Its length in bytes, if it says so.
    """

    revision: str
    digest: str
    size: int | None


def inspect(transfer: Transfer) -> Announced:
    """Asks for the headers of a file alone, within :data:`PATIENCE` seconds.

    Raises:
        Refused: The server answered with an error.
        Interrupted: The connection failed or ended early.
        TooSlow: The headers did not arrive in the time allowed.
        IntegrityError: The server announces another revision.
    """
    with _Watch() as watch, _network_errors(watch), _ask(transfer, 0, watch, method="HEAD") as answer:
        headers = answer.headers
        size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
        mark = headers.get("X-Linked-Etag") or headers.get("ETag") or ""
        return Announced(
            revision=headers.get("X-Repo-Commit", ""),
            digest=mark.removeprefix("W/").strip('"'),
            size=int(size) if re.fullmatch(r"[0-9]{1,15}", size) else None,
        )


def receive(transfer: Transfer, file: BinaryIO, progress: Callable[[int], object]) -> None:
    """Fetches the rest of a file: what ``file``, which is unbuffered, holds already is not asked for again.

    Args:
        transfer: What to fetch.
        file: Where the bytes go.
        progress: Told how many bytes were added.

    Raises:
        Refused: The server answered with an error.
        Interrupted: The connection failed or ended early.
        TooSlow: Less than a piece arrived in the time allowed.
        IntegrityError: The server announces or sends another file than was asked for.
        OSError: The file cannot be written.
    """
    file.seek(0, 2)
    with _Watch() as watch:
        with _network_errors(watch):
            answer = _ask(transfer, file.tell(), watch)
        with answer:
            total = _total(transfer, answer, file)
            while True:
                watch.more_time()
                with _network_errors(watch):
                    piece = answer.read(PIECE)
                if not piece:
                    break
                if file.tell() + len(piece) > transfer.max_bytes:
                    raise IntegrityError(
                        f"{transfer.what}: expected at most {transfer.max_bytes} bytes, found more."
                    )
                write_all(file, piece)
                progress(len(piece))
        if total is not None and file.tell() < total:
            raise Interrupted(f"the body ended after {file.tell()} of {total} bytes")


def _total(transfer: Transfer, answer: Any, file: BinaryIO) -> int | None:
    """The length that the answer announces for the whole file; an answer from the start empties ``file``."""
    if answer.status == 206:
        start = re.match(r"bytes ([0-9]{1,15})-", answer.headers.get("Content-Range", ""))
        if start is None or int(start[1]) != file.tell():
            raise Interrupted("it resumed at another place than was asked for")
    else:
        file.truncate(0)
        file.seek(0)
    length = answer.headers.get("Content-Length", "")
    total = file.tell() + int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
    _check_size(transfer, total)
    return total


def _check_size(transfer: Transfer, announced: int | None) -> None:
    if announced is None:
        return
    if transfer.size not in (None, announced):
        raise IntegrityError(
            f"{transfer.what}: expected {transfer.size} bytes, found {announced} bytes announced."
        )
    if announced > transfer.max_bytes:
        raise IntegrityError(
            f"{transfer.what}: expected at most {transfer.max_bytes} bytes, found {announced} announced."
        )


def _ask(transfer: Transfer, start: int, watch: _Watch, method: str = "GET") -> Any:
    """The answer whose body is the file, behind at most five redirects.

    To HEAD also the redirect that describes the file: the Hub knows its digest, the store that it leads to does not.
    """
    opener = _opener(watch)
    url = transfer.url
    for _ in range(_MOST_REDIRECTS + 1):
        headers = {"User-Agent": "flowzoo", "Accept-Encoding": "identity", "Connection": "close"}
        if start:
            headers["Range"] = f"bytes={start}-"
        if transfer.token and _origin(url) == _origin(transfer.url):
            headers["Authorization"] = f"Bearer {transfer.token}"
        answer: Any = opener.open(
            urllib.request.Request(url, headers=headers, method=method), timeout=SILENCE
        )
        revision = answer.headers.get("X-Repo-Commit")
        if answer.status < 400 and revision not in (None, transfer.revision):
            answer.close()
            raise IntegrityError(f"{transfer.what}: the server answers for another revision.")
        described = method == "HEAD" and answer.headers.get("X-Linked-Etag") is not None
        if answer.status in (200, 206) or (described and answer.status in _REDIRECTS):
            return answer
        answer.close()
        if answer.status not in _REDIRECTS:
            code = answer.headers.get("X-Error-Code", "")
            raise Refused(answer.status, code, answer.headers.get("Retry-After", ""))
        linked = answer.headers.get("X-Linked-Size", "")
        _check_size(transfer, int(linked) if re.fullmatch(r"[0-9]{1,15}", linked) else None)
        url = _next_url(url, answer.headers.get("Location", ""))
    raise Interrupted(f"it redirected more than {_MOST_REDIRECTS} times")


def _next_url(url: str, location: str) -> str:
    found = urljoin(url, location)
    old, new = urlsplit(url), urlsplit(found)
    if (
        new.scheme not in ("http", "https")
        or not new.hostname
        or (old.scheme, new.scheme) == ("https", "http")
    ):
        raise Interrupted("it redirected to something that is no web address, or away from https")
    return found


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


@contextlib.contextmanager
def _network_errors(watch: _Watch) -> Iterator[None]:
    """Turns what the standard library raises for a bad network or a bad answer into this module's errors."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if watch.expired:
            raise TooSlow(f"less than {PIECE} bytes in {PATIENCE:g} s") from error
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        # What a server wrote may be in the text of a protocol error; an operating system's own words are safe.
        words = f": {cause}" if isinstance(cause, OSError) else ""
        raise Interrupted(f"{type(cause).__name__}{words}") from error
    if watch.expired:
        raise TooSlow(f"less than {PIECE} bytes in {PATIENCE:g} s")


class _Watch:
    """Shuts a connection down from another thread when its time is over: no socket option bounds a trickle."""

    def __init__(self) -> None:
        self.expired = False
        self.connections: list[http.client.HTTPConnection] = []
        self.sockets: list[socket.socket] = []
        self._end = time.monotonic() + PATIENCE
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def more_time(self) -> None:
        """Starts the time for the next piece."""
        self._end = time.monotonic() + PATIENCE

    def _run(self) -> None:
        while not self._done.wait(min(1.0, max(0.01, self._end - time.monotonic()))):
            if time.monotonic() < self._end:
                continue
            self.expired = True
            # A connection that is just talking to a proxy has its socket, and has not handed it on yet.
            for sock in [*self.sockets, *(c.sock for c in self.connections if c.sock is not None)]:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _opener(watch: _Watch) -> urllib.request.OpenerDirector:
    """Opens http and https, through the proxies of the environment, and follows and raises nothing by itself."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), *_handlers(watch)):
        opener.add_handler(handler)
    return opener


def _handlers(watch: _Watch) -> tuple[urllib.request.BaseHandler, urllib.request.BaseHandler]:
    class Plain(http.client.HTTPConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            watch.connections.append(self)

        def connect(self) -> None:
            super().connect()
            watch.sockets.append(self.sock)

    class Secure(http.client.HTTPSConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            watch.connections.append(self)

        def connect(self) -> None:
            super().connect()
            watch.sockets.append(self.sock)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Plain, request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Secure, request, context=_certificates())

    return Http(), Https()


def _certificates() -> ssl.SSLContext:
    """The system's certificate authorities, and those of the Hub's client where it brings some."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):
        context.load_verify_locations(import_module("certifi").where())
    return context
