"""Answers to HTTP scrapes: a WSGI app, an ASGI app, and a server, with the signatures of `prometheus_client`'s own."""

from __future__ import annotations

import gzip
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIServer

import apsw
import prometheus_client
from prometheus_client import CollectorRegistry

from .client.collector import MultiProcessCollector
from .client.exposition import encode
from .client.negotiation import gzip_accepted, negotiated
from .errors import SQLMetricsError
from .process.trouble import tell
from .scrape.reader import Reader
from .scrape.text import Encoder
from .scrape.wanted import Wanted, wanted
from .store import installed as stores

log = logging.getLogger("sqlmetrics")

Path = str | os.PathLike[str] | None
_GZIP_LEVEL = 1
"""Measured for 505 KB of text: 2 ms and 61 KB at level 1; 38 ms and 48 KB at level 9, the default of `gzip`."""
METHODS = ("Allow", "OPTIONS,GET")


class Request(NamedTuple):
    """The parts of an HTTP request that matter for a scrape."""

    method: str
    path: str
    query: str
    accept: str
    accept_encoding: str


class Answer(NamedTuple):
    """An HTTP answer."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Scraper:
    """Answers scrapes of one store.

    text: makes the wanted exposition with an encoder. complain: gets an error that a client gets as 503.
    """

    def __init__(
        self,
        text: Callable[[Encoder, Wanted], bytes],
        complain: Callable[[Exception], object],
        *,
        compresses: bool = True,
        self_metrics: bool | None = None,
    ):
        self._text, self._complain = text, complain
        self._compresses = compresses
        self._wanted = wanted(self_metrics=self_metrics)

    def answer(self, request: Request) -> Answer:
        """Answer like `prometheus_client`'s apps; 503 if the store cannot be read."""
        if request.method == "OPTIONS":
            return Answer("200 OK", [METHODS], b"")
        if request.method != "GET":
            said = f"# HTTP 405 Method Not Allowed: {request.method}; use OPTIONS or GET\n"
            return Answer("405 Method Not Allowed", [METHODS], said.encode("utf-8", "backslashreplace"))
        if request.path == "/favicon.ico":
            return Answer("200 OK", [], b"")
        try:
            return self._scrape(request)
        except (SQLMetricsError, apsw.Error, OSError) as error:
            self._complain(error)
            return Answer("503 Service Unavailable", [], b"# the store cannot be read now; the log says more\n")

    def _scrape(self, request: Request) -> Answer:
        encoder, content_type = negotiated(request.accept)
        names = parse_qs(request.query).get("name[]")
        asked = self._wanted if names is None else replace(self._wanted, names=frozenset(names))
        body = self._text(encoder, asked)
        headers = [("Content-Type", content_type)]
        if self._compresses and gzip_accepted(request.accept_encoding):
            body = gzip.compress(body, _GZIP_LEVEL)
            headers.append(("Content-Encoding", "gzip"))
        return Answer("200 OK", headers, body)


def _scraper(path: Path, disable_compression: bool, self_metrics: bool | None) -> Scraper:
    """Return the scraper of the installed store, or of the store at a path."""
    reader = _reader(path)

    def complain(error: Exception) -> None:
        tell(logging.ERROR, f"{reader.path}: a scrape could not be answered ({error!r})")

    return Scraper(partial(encode, reader), complain, compresses=not disable_compression, self_metrics=self_metrics)


def _reader(path: Path) -> Reader:
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"expected the path of a store, or nothing, and not {path!r}; to serve a registry with other collectors"
            " too, register sqlmetrics.MultiProcessCollector(registry) and use prometheus_client's function"
        )
    return stores.reader(path)


def make_wsgi_app(
    path: Path = None, disable_compression: bool = False, *, self_metrics: bool | None = None
) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI app that answers scrapes from the store.

    It answers in text 0.0.4 or OpenMetrics, as the client accepts, with gzip unless you disable it.
    ``?name[]=requests_total`` asks for only these samples. If there is no store, or it cannot read the store, it
    answers 503 and logs the reason.

    path: the store's file or folder; default: the installed store, else what the environment names.
    self_metrics: whether to show the families about the store itself (``sqlmetrics_…``), too; default: what
        ``SQLMETRICS_SELF_METRICS`` says.

    Raises PathError if nothing names a path, TypeError for a registry.
    """
    scraper = _scraper(path, disable_compression, self_metrics)

    def sqlmetrics_app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        status, headers, body = scraper.answer(
            Request(
                method=environ["REQUEST_METHOD"],
                path=environ.get("PATH_INFO", ""),
                query=environ.get("QUERY_STRING", ""),
                accept=environ.get("HTTP_ACCEPT", ""),
                accept_encoding=environ.get("HTTP_ACCEPT_ENCODING", ""),
            )
        )
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return sqlmetrics_app


def make_asgi_app(
    path: Path = None, disable_compression: bool = False, *, self_metrics: bool | None = None
) -> Callable[..., Awaitable[None]]:
    """Return an ASGI app that answers scrapes from the store, in a thread, so that the event loop goes on meanwhile.

    See `make_wsgi_app`. Runs on asyncio and trio.
    """
    scraper = _scraper(path, disable_compression, self_metrics)

    async def sqlmetrics_app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        if scope["type"] != "http":
            raise ValueError(f"a scrape is an HTTP request, and not {scope['type']!r}")
        await send_answer(send, await _in_thread(scraper.answer, request_of(scope)))
        return None

    return sqlmetrics_app


def request_of(scope: Mapping[str, Any]) -> Request:
    """Return the parts of an ASGI request that matter."""
    headers = scope.get("headers") or ()
    return Request(
        method=scope["method"],
        path=scope.get("path", ""),
        query=scope.get("query_string", b"").decode("latin-1"),
        accept=header(headers, b"accept"),
        accept_encoding=header(headers, b"accept-encoding"),
    )


async def send_answer(send: Callable[..., Any], answer: Answer) -> None:
    """Answer an ASGI request."""
    sent = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    await send(
        {
            "type": "http.response.start",
            "status": int(answer.status[:3]),
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})


async def _live(receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Speak the lifespan protocol (https://asgi.readthedocs.io/en/latest/specs/lifespan.html), but start nothing."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def _in_thread(function: Callable[[Request], Answer], request: Request) -> Answer:
    import asyncio  # here: the import takes 17 ms, and most apps do not need it

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        answer: Answer = await trio.to_thread.run_sync(function, request)
        return answer
    return await asyncio.to_thread(function, request)


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the value of an ASGI request's header, '' if it has none."""
    return ",".join(value.decode("latin-1") for key, value in headers if key.lower() == name)


def start_http_server(
    port: int,
    addr: str = "0.0.0.0",  # noqa: S104 - as `prometheus_client`'s
    path: Path = None,
    *,
    self_metrics: bool | None = None,
    **tls: Any,
) -> tuple[WSGIServer, threading.Thread]:
    """Answer scrapes on a port, in a daemon thread; returns the server and the thread.

    port: 0 for a free one, see ``server.server_port``. addr: the address to listen at. path, self_metrics: see
    `make_wsgi_app`. tls: ``certfile``, ``keyfile`` and so on, as for `prometheus_client.start_http_server`.

    Raises PathError, NoStoreError if there is no store and none is installed, OSError if it cannot have the port.
    """
    app = make_wsgi_app(path, self_metrics=self_metrics)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path, self_metrics=self_metrics)  # for scrapes before `set_app`
    server, thread = prometheus_client.start_http_server(port, addr, registry, **tls)
    server.set_app(app)
    return server, thread
