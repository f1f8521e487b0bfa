"""A program whose threads are greenlets. It does what it is told over a socket, the number of which it is given.

Arguments: gevent or eventlet; when it patches: first, imported (after prometheus_client and sqlmetrics), counting
(while the flusher runs) or forked (in a child); the path of the store; the socket's number.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable

LIBRARY, WHEN, PATH, FD = sys.argv[1:5]


def patch() -> None:
    if LIBRARY == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        warnings.filterwarnings("ignore", "\nEventlet is deprecated")
        import eventlet

        eventlet.monkey_patch()


if WHEN == "first":
    patch()

from prometheus_client import Counter, Gauge, Histogram  # noqa: E402

import sqlmetrics  # noqa: E402

if WHEN == "imported":
    patch()

logging.getLogger("sqlmetrics").addHandler(logging.NullHandler())
store = sqlmetrics.install(PATH, flush_interval=0.05)
REQUESTS = Counter("requests", "Requests", ["path"])
SECONDS = Histogram("seconds", "Durations", buckets=[1, 2])
WHERE = Gauge("where", "The thread that asks this function", multiprocess_mode="max")
thread_id = sys.modules["_thread"].get_native_id

if WHEN in ("counting", "forked"):
    REQUESTS.labels("before").inc()
    while len(os.listdir("/proc/self/task")) == 1:
        time.sleep(0.005)
if WHEN == "forked" and (child := os.fork()):
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256)
if WHEN in ("counting", "forked"):
    patch()

if LIBRARY == "gevent":
    import gevent
    from gevent import sleep, spawn
else:
    import eventlet
    from eventlet import sleep, spawn

import socket  # noqa: E402


class Handler(logging.Handler):
    """Notes in which thread it is called, and lets other greenlets go on in the middle, as one that sends does."""

    threads: set[int] = set()  # noqa: RUF012

    def emit(self, record: logging.LogRecord) -> None:
        self.threads.add(thread_id())
        sleep(0.001)


logging.getLogger("sqlmetrics").addHandler(Handler())


class Tally:
    """What was counted in two processes, also if one of them is killed."""

    def __init__(self) -> None:
        self._made_by = os.getpid()
        self._memory = memoryview(mmap.mmap(-1, 16)).cast("Q")

    def add(self) -> None:
        self._memory[os.getpid() != self._made_by] += 1

    def of_child(self) -> int:
        return self._memory[1]

    def all(self) -> int:
        return sum(self._memory)


def join(greenlets: list) -> None:
    for one in greenlets:
        one.get() if LIBRARY == "gevent" else one.wait()


def start(path: str, greenlets: int, times: int, tally: Tally) -> list:
    """Count in many greenlets, each with children of its own and one that all have."""

    def work(number: int) -> None:
        for step in range(times):
            REQUESTS.labels(f"{path}-{number}-{step % 7}").inc()
            SECONDS.observe(1.5)
            REQUESTS.labels(path).inc()
            tally.add()  # nothing in between lets another greenlet go on
            sleep(0)

    return [spawn(work, number) for number in range(greenlets)]


def count(path: str, greenlets: int, times: int) -> int:
    tally = Tally()
    join(start(path, greenlets, times, tally))
    return tally.all()


def compute(path: str, until: str) -> None:
    """Make a child, and then let no other greenlet go on until a file is there."""
    REQUESTS.labels(path).inc()
    while not os.path.exists(until):
        pass


def fork(path: str) -> list[int]:
    """Fork in the middle of counting; the greenlets go on in both. Returns the child's status, and what was counted."""
    tally = Tally()
    greenlets = start(path, 10, 50, tally)
    sleep(0)
    pid = os.fork()
    if pid == 0:
        join(start(path, 10, 10, tally))
        sys.exit(7)
    join(greenlets)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return [status, tally.of_child(), tally.all()]


def kill(path: str) -> int:
    """Fork a child that counts for ever, kill it in the middle of that, and return what it had counted."""
    tally = Tally()
    pid = os.fork()
    if pid == 0:
        join(start(path, 20, 10**9, tally))
        os._exit(1)
    while tally.of_child() < 500:
        sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return tally.of_child()


def scrape_at_once(greenlets: int) -> list[float | None]:
    """Scrape in many greenlets while a function that is asked lets others go on."""
    slow = Gauge("slow", "Asked in every scrape", multiprocess_mode="max")
    slow.set_function(lambda: sleep(0.01) or 7)
    found: list[float | None] = []
    for turn in range(3):
        join([spawn(lambda: found.append(store.get_sample_value("slow"))) for _ in range(greenlets)])
        REQUESTS.labels(f"turn-{turn}").inc()
    slow.set_function(lambda: 7)
    return found


def serve() -> int:
    """Have the library's server answer scrapes in greenlets; returns the port."""
    app = sqlmetrics.make_wsgi_app()
    if LIBRARY == "gevent":
        from gevent.pywsgi import WSGIServer

        server = WSGIServer(("127.0.0.1", 0), app, log=None)
        server.start()
        return server.server_port
    import eventlet.wsgi

    listener = eventlet.listen(("127.0.0.1", 0))
    spawn(eventlet.wsgi.server, listener, app, log_output=False)
    return listener.getsockname()[1]


def serve_in_thread() -> int:
    """The same by what `threading` has become; returns the port."""
    return sqlmetrics.start_http_server(0, "127.0.0.1")[0].server_port


def wait_for_all() -> None:
    """Wait until there is nothing any more that anybody might wait for."""
    count("last", 2, 2)
    if LIBRARY == "gevent":
        gevent.wait()
    else:
        eventlet.GreenPool().waitall()


STEPS: dict[str, Callable[..., object]] = {
    one.__name__: one for one in (count, compute, fork, kill, scrape_at_once, serve, serve_in_thread, wait_for_all)
}
STEPS["pid"] = os.getpid
STEPS["ask_where"] = lambda: WHERE.set_function(thread_id)
STEPS["threads_of_handler"] = lambda: sorted(Handler.threads)

orders = socket.socket(fileno=int(FD))
for line in orders.makefile("r"):
    name, arguments = json.loads(line)
    orders.sendall(json.dumps(STEPS[name](*arguments)).encode() + b"\n")
