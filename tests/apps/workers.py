"""A program that uses everything in the package, and prints what its scrapes show. argv: the store.

It checks nothing itself, because its interpreter may leave out `assert` statements.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
import urllib.request

from prometheus_client import PROCESS_COLLECTOR, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest

import sqlmetrics

early = Counter("early", "Made before the store was installed")
early.inc(2)
store = sqlmetrics.install(sys.argv[1], flush_interval=0.01)
requests = Counter("requests", "Requests", ["path"])
seconds = Histogram("seconds", "Durations", buckets=[1, 2])
size = Summary("size", "Sizes")
recent = Gauge("recent", "Recent", multiprocess_mode="mostrecent")
living = Gauge("living", "Living", multiprocess_mode="livesum")
asked = Gauge("asked", "A function", multiprocess_mode="max")
asked.set_function(lambda: 3)
build = Info("build", "Build")
task = Enum("task", "Task", states=["starting", "running"])
sqlmetrics.publish(PROCESS_COLLECTOR)


def use(times: int) -> None:
    for number in range(times):
        requests.labels("/").inc(exemplar={"trace": str(number)})
        seconds.observe(1.5)
        size.observe(10)
    requests.labels("/gone").inc()
    recent.set(5)
    living.inc()
    build.info({"version": "1"})
    task.state("running")


def worker(ending: str) -> int:
    """Fork a process that counts, and then either waits to be killed, or exits in order."""
    ready, told = os.pipe()
    if pid := os.fork():
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return pid
    use(100)
    os.write(told, b".")
    if ending == "exit":
        sys.exit(0)
    signal.pause()
    return 0


def get(app) -> str:
    """Send a request to an ASGI app, and return its answer."""
    sent: list[dict] = []

    async def run() -> None:
        async def send(message):
            sent.append(message)

        await app({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}, None, send)

    asyncio.run(run())
    return sent[1]["body"].decode()


def samples(text: str) -> dict[str, float]:
    """Return the app's samples in an exposition."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines if not re.match("process_|python_", name)}


killed, ended = worker("kill"), worker("exit")
os.waitpid(ended, 0)
os.kill(killed, signal.SIGKILL)
os.waitpid(killed, 0)
threads = [threading.Thread(target=use, args=(50,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
requests.remove("/gone")

texts = [sqlmetrics.generate_latest().decode(), generate_latest().decode()]
texts.append(b"".join(sqlmetrics.make_wsgi_app()({"REQUEST_METHOD": "GET"}, lambda *_: None)).decode())
texts.append(get(sqlmetrics.make_asgi_app()))
server, thread = sqlmetrics.start_http_server(0, "127.0.0.1")
with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}") as answer:
    texts.append(answer.read().decode())
server.shutdown()
server.server_close()
thread.join()
has_flushed = store.flush().name
sqlmetrics.uninstall()
requests.labels("/").inc()
print(json.dumps([[samples(text) for text in texts], has_flushed, samples(generate_latest().decode())]))
