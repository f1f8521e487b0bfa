"""`sqlmetrics serve`: scrapes of a store that others count in, by a process that only looks."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exporting import Exporter, serving
from helpers import delete, in_child, wait_for
from looking import as_they_are, read_only, with_mounts, worker
from outsiders import as_root, drop_rights

import sqlmetrics
from sqlmetrics.exporter.access import Access
from sqlmetrics.exporter.api import Api
from sqlmetrics.exporter.app import Exporter as App
from sqlmetrics.exporter.watched import Watched

pytestmark = pytest.mark.slow

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
COUNTED = 'requests_total{path="/"} '


@pytest.mark.promise(2, 3)
def test_a_scrape_is_exact_and_follows_each_worker(path: str) -> None:
    """What a worker has counted is in the next scrape, before any flush and after SIGKILL."""
    with worker(path, flush_interval=1000) as one, serving(path) as exporter:
        one.do("count", "/", 3)
        assert f"{COUNTED}3.0\n" in exporter.text()
        one.do("count", "/", 4)
        one.kill()
        assert f"{COUNTED}7.0\n" in exporter.text()


def test_answers_are_those_of_the_library(path: str) -> None:
    """Both formats, to the byte, and compressed for those that take it."""
    with worker(path) as one, serving(path, "--no-self-metrics") as exporter:
        one.do("observe", "/", 0.2, 0.7)
        one.do("set", "each", 1.5)
        assert exporter.text() == sqlmetrics.generate_latest(path).decode()
        answer = exporter.get("/metrics", Accept=OPENMETRICS, Accept_Encoding="gzip")

        assert answer.headers["content-type"].startswith(OPENMETRICS.partition(";")[0])
        assert gzip.decompress(answer.body) == sqlmetrics.generate_latest(path, openmetrics=True)


def test_only_the_samples_that_are_asked_for_are_shown(path: str) -> None:
    """By `name[]`, as often as it is there."""
    with worker(path) as one, serving(path) as exporter:
        one.do("count", "/", 1)
        one.do("set", "busy", 2)
        lines = exporter.text("/metrics?name[]=requests_total&name[]=busy").splitlines()
        assert {line for line in lines if not line.startswith("#")} == {f"{COUNTED}1.0", "busy 2.0"}


def test_the_stores_own_series_are_there_unless_switched_off(path: str) -> None:
    """By default a scrape shows them."""
    with worker(path), serving(path) as exporter, serving(path, "--no-self-metrics") as without:
        assert 'sqlmetrics_processes{state="alive"} 1.0\n' in exporter.text()
        assert "sqlmetrics_" not in without.text()


@pytest.mark.promise(5)
def test_the_exporter_is_no_process_of_the_store_and_changes_no_byte(path: str) -> None:
    """Not with a store of the dead only, which it leaves to be settled by others."""
    with worker(path) as one:
        one.do("count", "/", 1)
        one.kill()
    before = as_they_are(path)
    with serving(path, SQLMETRICS_PATH=path) as exporter:
        assert f"{COUNTED}1.0\n" in exporter.text()
        assert exporter.get("/-/ready").status == 200
        assert exporter.json("now")["processes"][0]["state"] == "dead"
        assert exporter.json("health")["findings"]
    assert as_they_are(path) == before


@pytest.mark.promise(5)
def test_it_waits_for_a_store_and_follows_the_next_one(path: str, folder: Path) -> None:
    """It makes none; readiness says why there is nothing, and each cause is logged once."""
    with serving(path) as exporter:
        assert exporter.get("/-/healthy").status == 200
        for _ in range(3):
            answer = exporter.get("/-/ready")
            assert (answer.status, path in answer.body.decode()) == (503, True)
            assert exporter.get("/metrics").status == 503
            assert exporter.get("/api/now").status == 503
        assert os.listdir(folder) == []
        assert exporter.log().count("no store at") == 1

        for number in (1, 2):
            with worker(path) as one:
                one.do("count", "/", number)
                wait_for(lambda: exporter.get("/-/ready").status == 200)
                wait_for(lambda value=f"{COUNTED}{number}.0\n": value in exporter.text())
            delete(path)
            assert exporter.get("/-/ready").status == 503
        assert exporter.log().count("can be read") == 2


def test_it_waits_for_a_folder_that_is_not_there(folder: Path) -> None:
    """As one that systemd makes when the app starts."""
    path = str(folder / "later" / "metrics.sqlite3")
    with serving(path) as exporter:
        assert exporter.get("/-/ready").status == 503
        os.mkdir(folder / "later")
        with worker(path) as one:
            one.do("count", "/", 5)
            assert f"{COUNTED}5.0\n" in exporter.text()


def answers(path: str) -> list[tuple[int, str]]:
    """What an exporter says to three questions, asked without a server between."""

    async def ask(app: App, question: str) -> tuple[int, str]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": question, "headers": [], "query_string": b""}
        await app(scope, lambda: None, send)
        return sent[0]["status"], sent[1]["body"].decode()

    async def ask_all() -> list[tuple[int, str]]:
        app = App(Watched(path), Api(Watched(path)), Access())
        return [await ask(app, question) for question in ("/-/ready", "/metrics", "/api/now")]

    return asyncio.run(ask_all())


@as_root
@with_mounts
def test_another_user_on_a_read_only_mount_is_enough(path: str, folder: Path) -> None:
    """All of it: readiness, scrapes, the page's data, with a process alive on the other side and with none."""

    def as_nobody() -> list[list[object]]:
        answers(place)  # loads what one without rights may not read
        drop_rights()
        return [list(one) for one in answers(place)]

    folder.chmod(0o755)
    with worker(path) as one, read_only(folder) as place:
        one.do("count", "/", 2)
        for state in ("alive", "dead"):
            found = in_child(as_nobody)
            assert [status for status, _ in found] == [200, 200, 200]
            assert f"{COUNTED}2.0\n" in found[1][1]
            assert f'"state": "{state}"' in found[2][1]
            if state == "alive":
                one.kill()


def test_it_says_at_once_what_it_serves_and_where(path: str) -> None:
    """One line: the store, how it was found, and the URL."""
    with worker(path), serving(None, SQLMETRICS_PATH=path) as exporter:
        assert exporter.text()
        assert exporter.log() == f"sqlmetrics: serving {path} (from SQLMETRICS_PATH) at {exporter.url}\n"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well_with_clients_connected(path: str, end: int) -> None:
    """One that has asked for nothing, one that waits between two requests."""
    with worker(path), serving(path, end=end) as exporter:
        silent, idle = (socket.create_connection(exporter.address) for _ in range(2))
        idle.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
    silent.close()
    idle.close()


def test_slow_and_idle_clients_hold_up_nobody(path: str) -> None:
    """Fifty that send half of a request, and one that does not read its answer; they are gone after some seconds."""
    with worker(path) as one, serving(path) as exporter:
        one.do("burst", 0, 3000)
        slow = [socket.create_connection(exporter.address) for _ in range(50)]
        for each in slow:
            each.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        unread = _unread(exporter)

        begun = time.monotonic()
        for _ in range(5):
            assert 'path="2999"' in exporter.text()
        assert time.monotonic() - begun < 8
        for each in slow:
            each.settimeout(20)
            assert each.recv(100) == b""  # it has hung up
            each.close()
        wait_for(lambda: not _connections(exporter))
        unread.close()


def test_a_client_that_takes_its_answers_slowly_is_not_cut_off(path: str) -> None:
    """A little in each second will do, however much the kernel keeps for it."""
    with worker(path) as one, serving(path) as exporter:
        one.do("burst", 0, 3000)
        with _unread(exporter) as slow:
            until = time.monotonic() + 13
            while time.monotonic() < until:
                assert slow.recv(1024)
                time.sleep(0.5)
            assert len(_connections(exporter)) == 1


def _unread(exporter: Exporter) -> socket.socket:
    """A client that asks for more than the kernel keeps for it, and takes nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(exporter.address)
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    return client


@pytest.mark.parametrize(("files", "told"), [(120, 2), (1024, 1)])
def test_more_clients_than_it_can_have_do_not_fill_the_log(path: str, files: int, told: int) -> None:
    """With fewer open files than the exporter wants, and with the usual limit; it answers when they have gone."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(worker(path))
        stack.enter_context(_raised_to(4096))
        exporter = stack.enter_context(serving(path, files=files))
        clients = [stack.enter_context(socket.socket()) for _ in range(files + 200)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(exporter.address)
        time.sleep(3)
        for client in clients:
            client.close()
        assert wait_for(lambda: exporter.get("/-/healthy").status == 200)
        assert len(exporter.log().splitlines()) == told, exporter.log()


@contextlib.contextmanager
def _raised_to(files: int) -> Iterator[None]:
    """This process may have so many open files meanwhile, as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connections(exporter: Exporter) -> list[str]:
    """Those that the exporter has open, as the kernel says."""
    own, is_open = f":{exporter.address[1]:04X}", "01"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(own) and line.split()[3] == is_open]


def test_a_client_that_takes_no_answer_does_not_hold_up_the_end(path: str) -> None:
    """The exporter ends in seconds, and without a traceback."""
    with worker(path) as one, serving(path) as exporter:
        one.do("burst", 0, 3000)
        with _unread(exporter):
            for _ in range(50):  # meanwhile as many answers are made for the other one
                assert 'path="2999"' in exporter.text()
            begun = time.monotonic()
            exporter.process.terminate()
            assert exporter.process.wait(20) == 0
            assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    "sent", [b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"]
)
@pytest.mark.parametrize("before", [b"", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_nonsense_is_not_worth_a_line_of_the_log(path: str, before: bytes, sent: bytes) -> None:
    """Whether it is the head of a request, or comes in its body, at once or after the answer."""
    with worker(path), serving(path) as exporter:
        for pause in (0, 0.2):
            with socket.create_connection(exporter.address, timeout=20) as client:
                client.sendall(before)
                time.sleep(pause)
                client.sendall(sent + b"\r\n\r\n")
                while client.recv(1000):
                    pass
        assert exporter.get("/-/healthy").status == 200
        assert len(exporter.log().splitlines()) == 1


def test_a_head_of_a_request_that_is_too_long_is_refused(path: str) -> None:
    """Before it is read to its end."""
    with worker(path), serving(path) as exporter:
        assert _status_of_long_head(exporter) == b"400"
        assert exporter.get("/-/healthy").status == 200


def _status_of_long_head(exporter: Exporter) -> bytes:
    with socket.create_connection(exporter.address, timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000)
        return client.recv(100).split()[1]


def test_other_methods_and_paths_are_answered_in_order(path: str) -> None:
    """HEAD as GET without a body, OPTIONS, what is not allowed, and what is not there."""
    with worker(path), serving(path) as exporter:
        head = exporter.get("/metrics", "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        assert exporter.get("/metrics", "OPTIONS").headers["allow"] == "OPTIONS,GET"
        assert exporter.get("/metrics", "POST").status == 405
        assert exporter.get("/nothing").status == 404
        assert exporter.get("/api/nothing").status == 404
        assert exporter.get("/api/histogram?family=none").status == 400
        assert exporter.get("/api/search?q=%7Bnonsense").status == 400
        for labels in ("[1]", "{", "%5B" * 15_000):
            assert exporter.get(f"/api/series?family=x&name=x&labels={labels}").status == 400


@pytest.mark.promise(2)
def test_scrapes_at_once_each_show_what_was_counted_before_them(path: str) -> None:
    """Eight clients scrape as fast as they can, and may share answers; none is older than its question."""
    counted, found = 0, list[tuple[int, float]]()
    stop = threading.Event()

    def scrape(exporter: Exporter) -> None:
        while not stop.is_set():
            before = counted
            text = exporter.text("/metrics?name[]=requests_total")
            shown = re.search(rf"^{re.escape(COUNTED)}(\S+)$", text, re.MULTILINE)
            found.append((before, float(shown[1]) if shown else 0.0))

    with worker(path) as one, serving(path) as exporter:
        threads = [threading.Thread(target=scrape, args=[exporter]) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(found) < 200:
            one.do("count", "/", 1)
            counted += 1
        stop.set()
        for thread in threads:
            thread.join()
    assert [(before, shown) for before, shown in found if shown < before] == []
    assert len({shown for _, shown in found}) > 20
