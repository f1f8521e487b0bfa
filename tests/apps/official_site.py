"""A site around the official page's examples: it uses their metrics, and its /metrics is their app."""

import os
import time

import official_app
from official_gauge import IN_PROGRESS


def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return official_app.app(environ, lambda status, headers: start_response(status, [*headers, *worker()]))
    start_response("200 OK", worker())
    return hold() if environ["PATH_INFO"] == "/hold" else count()


def worker():
    return [("X-Worker", str(os.getpid()))]


def count():
    with IN_PROGRESS.track_inprogress():
        official_app.MY_COUNTER.inc()
    return [b"done\n"]


def hold():
    with IN_PROGRESS.track_inprogress():
        yield b"held\n"
        time.sleep(20)  # longer than any test holds it: the worker is killed meanwhile
