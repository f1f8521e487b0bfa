"""Scrapes over HTTP: the answers of `prometheus_client`'s own apps, and an event loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
import trio
from helpers import child, in_child, wait_for
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import sqlmetrics
from sqlmetrics.store import installed as stores

pytestmark = pytest.mark.promise(12)

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
REQUESTS: dict[str, dict[str, str]] = {
    "plain": {},
    "a browser": {"HTTP_ACCEPT": "text/html,*/*;q=0.8"},
    "Prometheus": {"HTTP_ACCEPT": OPENMETRICS, "HTTP_ACCEPT_ENCODING": "gzip"},
    "UTF-8 names": {"HTTP_ACCEPT": "text/plain;version=1.0.0;escaping=allow-utf-8"},
    "names": {"QUERY_STRING": "name[]=requests_total&name[]=latency_count&name[]=nothing"},
    "no such name": {"QUERY_STRING": "name[]=nothing"},
    "OPTIONS": {"REQUEST_METHOD": "OPTIONS"},
    "POST": {"REQUEST_METHOD": "POST"},
    "favicon": {"PATH_INFO": "/favicon.ico"},
}
Answer = tuple[str, dict[str, str], bytes]


def ask(app: object, request: dict[str, str]) -> Answer:
    """Status, headers and body, this one decompressed."""
    said: list[object] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": "", **request}
    body = b"".join(app(environ, lambda *given: said.extend(given)))  # type: ignore[operator]
    status, headers = said
    found = dict(headers)  # type: ignore[call-overload]
    assert found.pop("Content-Length", str(len(body))) == str(len(body))
    return str(status), found, gzip.decompress(body) if "Content-Encoding" in found else body


def count() -> None:
    """Something of each kind."""
    Counter("requests", "Requests", ["path"], registry=None).labels("/").inc(3)
    Counter("tasks.done", "A UTF-8 name", registry=None).inc()
    Histogram("latency", "Latency", registry=None).observe(0.3)
    Gauge("level", "Level", registry=None, multiprocess_mode="all").set(1.5)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_answers_are_those_of_prometheus_client(store: sqlmetrics.Store, request_: dict[str, str]) -> None:
    """The same status, headers and text, name by name."""
    in_child(count)
    registry = CollectorRegistry(support_collectors_without_names=True)
    sqlmetrics.MultiProcessCollector(registry)

    ours = ask(sqlmetrics.make_wsgi_app(), request_)

    theirs = ask(prometheus_client.make_wsgi_app(registry), request_)
    if request_.get("REQUEST_METHOD") == "POST":
        assert ours[0] == theirs[0]
        assert b"use OPTIONS or GET" in ours[2]
    else:
        assert ours == theirs
        assert b"requests_total" in ours[2] or "QUERY_STRING" in request_ or not ours[2]


ONE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
NEGOTIATED = {
    "application/openmetrics-text; version=2.0.0": f"{ONE}; escaping=underscores",
    "application/openmetrics-text;version=2.0.0;escaping=allow-utf-8,text/plain;q=0.1": f"{ONE}; escaping=allow-utf-8",
    "application/openmetrics-text; version=3.1.0;q=0.9, application/openmetrics-text; version=1.0.0;q=0.5": (
        f"{ONE}; escaping=underscores"
    ),
    'application/openmetrics-text; version="2.0.0"': f"{ONE}; escaping=underscores",
    "application/openmetrics-text; version=1.0.0.7": f"{ONE}; escaping=underscores",
    "application/openmetrics-text; version=1.1.0": f"{ONE}; escaping=underscores",
    "application/openmetrics-text": ONE,
    "application/openmetrics-text; version=0.0.1": PLAIN,
    "application/openmetrics-text; version=banana, application/openmetrics-text; version=1.0.0": (
        f"{ONE}; escaping=underscores"
    ),
    "application/openmetrics-text; version=banana": PLAIN,
    f"application/openmetrics-text; version={'9' * 5000}": PLAIN,
    "text/plain; version=2..0": PLAIN,
    "application/openmetrics-text;q=0, */*": PLAIN,
    "application/openmetrics-text; version=1.0.0; q=0.000 , text/plain;q=0.1": PLAIN,
    "application/openmetrics-text;q=0.1, text/plain;q=0.9": PLAIN,
    "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1": PLAIN,
    "text/plain;version=1.0.0;q=0.4,application/openmetrics-text;version=1.0.0;q=0.5": f"{ONE}; escaping=underscores",
    "text/plain;q=0.5,application/openmetrics-text;q=0.5": ONE,
    "text/plain;q=0.9,application/openmetrics-text;q=banana": ONE,
    "text/plain; version=2.0.0; escaping=values": "text/plain; version=1.0.0; charset=utf-8; escaping=values",
}


@pytest.mark.parametrize("accepted", NEGOTIATED, ids=lambda text: text[:70])
def test_a_client_is_told_the_version_that_it_gets(store: sqlmetrics.Store, accepted: str) -> None:
    """Whatever version it asks for, OpenMetrics is 1.0; a version that is no number is as good as none.

    Of several types it gets the one that it likes most.
    """
    in_child(count)
    app = sqlmetrics.make_wsgi_app()
    status, headers, text = ask(app, {"HTTP_ACCEPT": accepted})

    assert (status, headers["Content-Type"]) == ("200 OK", NEGOTIATED[accepted])
    assert text == ask(app, {"HTTP_ACCEPT": headers["Content-Type"]})[2]
    assert text.endswith(b"# EOF\n") == ("openmetrics" in headers["Content-Type"])


@pytest.mark.parametrize(
    ("accepted", "is_gzip"), [("gzip;q=0", False), ("br, gzip; q=0.0", False), ("GZIP;q=0.1", True)]
)
def test_a_client_that_refuses_gzip_gets_none(store: sqlmetrics.Store, accepted: str, is_gzip: bool) -> None:
    """By a quality of 0."""
    answer = ask(sqlmetrics.make_wsgi_app(), {"HTTP_ACCEPT_ENCODING": accepted})
    assert ("Content-Encoding" in answer[1]) is is_gzip


def test_compression_can_be_disabled(store: sqlmetrics.Store) -> None:
    """As in the peer."""
    count()
    request = REQUESTS["Prometheus"]

    assert "Content-Encoding" in ask(sqlmetrics.make_wsgi_app(), request)[1]
    assert "Content-Encoding" not in ask(sqlmetrics.make_wsgi_app(disable_compression=True), request)[1]


def test_self_metrics_are_served_on_request(store: sqlmetrics.Store) -> None:
    """Only if it is wanted."""
    count()

    assert b"sqlmetrics_rows{" in ask(sqlmetrics.make_wsgi_app(self_metrics=True), {})[2]
    assert b"sqlmetrics_" not in ask(sqlmetrics.make_wsgi_app(), {})[2]
    assert b"sqlmetrics_rows{" in sqlmetrics.generate_latest(self_metrics=True)
    names = sqlmetrics.generate_latest(names=["requests_total", "sqlmetrics_free_bytes"], self_metrics=True).decode()
    assert sum(not line.startswith("#") for line in names.splitlines()) == 2


def fetch(port: int, query: str = "", **headers: str) -> tuple[int, bytes]:
    """Status and body of a real request."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics{query}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@contextlib.contextmanager
def served(**options: object) -> Iterator[int]:
    """A server in this process; gives its port."""
    server, thread = sqlmetrics.start_http_server(0, "127.0.0.1", **options)  # type: ignore[arg-type]
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_shows_what_another_process_has_just_counted(store: sqlmetrics.Store) -> None:
    """Each scrape asks anew."""
    calls = Counter("calls", "Calls", registry=None)
    with child(inc=calls.inc) as one, served() as port:
        for number in range(1, 4):
            one.do("inc")
            assert f"calls_total {number}.0\n".encode() in fetch(port)[1]
        assert fetch(port, "?name[]=calls_total")[1].count(b"\n") == 3
        assert fetch(port, Accept=OPENMETRICS)[1].endswith(b"# EOF\n")


@pytest.mark.promise(4)
def test_a_store_that_cannot_be_read_is_503_until_it_can(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The reason is in the log, and the next scrape asks anew."""
    app = sqlmetrics.make_wsgi_app(path)
    status, _, body = ask(app, {})

    assert (status, body) == ("503 Service Unavailable", b"# the store cannot be read now; the log says more\n")
    assert path in caplog.text
    sqlmetrics.install(path)
    count()
    assert ask(app, {})[0] == "200 OK"


def test_misuse_is_refused_when_the_app_is_made(store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry instead of a path, no path at all, files that are not there."""
    with pytest.raises(TypeError, match="MultiProcessCollector"):
        sqlmetrics.make_wsgi_app(CollectorRegistry())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="certificate"):  # the peer's function gets what it is given
        sqlmetrics.start_http_server(0, "127.0.0.1", certificate="/nowhere")
    sqlmetrics.uninstall()
    with pytest.raises(sqlmetrics.PathError):
        sqlmetrics.make_asgi_app()


async def ask_asgi(app: object, request: dict[str, str]) -> Answer:
    """The same request to an ASGI app."""
    sent: list[dict[str, object]] = []

    async def send(event: dict[str, object]) -> None:
        sent.append(event)

    headers = [
        (name[5:].lower().replace("_", "-").encode(), value.encode())
        for name, value in request.items()
        if name.startswith("HTTP_")
    ]
    scope = {
        "type": "http",
        "method": request.get("REQUEST_METHOD", "GET"),
        "path": request.get("PATH_INFO", "/metrics"),
        "query_string": request.get("QUERY_STRING", "").encode(),
        "headers": headers,
    }
    await app(scope, None, send)  # type: ignore[operator]
    start, body = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}  # type: ignore[attr-defined]
    assert found.pop("content-length") == str(len(body["body"]))  # type: ignore[arg-type]
    whole = gzip.decompress(body["body"]) if "content-encoding" in found else body["body"]  # type: ignore[arg-type]
    return str(start["status"]), found, whole  # type: ignore[return-value]


@pytest.mark.parametrize("run", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)], ids=["asyncio", "trio"])
def test_the_asgi_app_answers_as_the_wsgi_app(store: sqlmetrics.Store, run: object) -> None:
    """On both kinds of loops."""
    in_child(count)
    for request in REQUESTS.values():
        status, headers, body = ask(sqlmetrics.make_wsgi_app(), request)
        answer = run(ask_asgi(sqlmetrics.make_asgi_app(), request))  # type: ignore[operator]
        assert answer == (status[:3], {name.lower(): value for name, value in headers.items()}, body)


@pytest.mark.promise(5)
def test_the_loop_goes_on_during_a_scrape(store: sqlmetrics.Store) -> None:
    """While another thread has the store's connection, a scrape waits, and nothing else does."""
    count()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with stores.reader()._access():
            held.set()
            release.wait(20)

    async def scrape_and_go_on() -> Answer:
        scraping = asyncio.create_task(ask_asgi(sqlmetrics.make_asgi_app(), {}))
        for _ in range(100):
            await asyncio.sleep(0.001)
            assert not scraping.done()
        release.set()
        return await scraping

    assert sqlmetrics.generate_latest()
    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    try:
        assert asyncio.run(scrape_and_go_on())[0] == "200"
    finally:
        release.set()
        holder.join()


def test_uvicorn_serves_the_asgi_app(path: str, folder: Path) -> None:
    """Under uvicorn, with its lifespan events."""
    (folder / "served.py").write_text(
        "import sqlmetrics, prometheus_client\n"
        "sqlmetrics.install()\n"
        "prometheus_client.Counter('starts', 'Starts').inc()\n"
        "app = sqlmetrics.make_asgi_app()\n"
    )
    command = [sys.executable, "-m", "uvicorn", "served:app", "--port", "0", "--lifespan", "on"]
    environment = {**os.environ, "SQLMETRICS_PATH": path, "PYTHONPATH": f"{folder}:{os.getcwd()}"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment) as server:
        assert server.stderr is not None
        try:
            said = ""
            while "running on" not in said:
                said = server.stderr.readline()
                assert said, "uvicorn ended"
            port = int(said.rpartition(":")[2].split()[0])
            wait_for(lambda: b"starts_total 1.0\n" in fetch(port)[1])
        finally:
            server.terminate()
            rest = server.stderr.read()
    assert "Application shutdown complete" in rest
