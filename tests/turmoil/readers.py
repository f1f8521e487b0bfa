"""Processes that scrape and do not count."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

import sqlmetrics

from . import ledger as accounts
from .audit import Auditor
from .ledger import Ledger

_FRESH_PROCESS = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from sqlmetrics import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry, sys.argv[1])
sys.stdout.write(generate_latest(registry).decode())
"""


def text_of_store(path: str) -> str:
    """The fast way."""
    return sqlmetrics.generate_latest(path).decode()


def text_of_fresh_process(path: str) -> str:
    """A process that reads the store for the first time, and ends."""
    command = [sys.executable, "-c", _FRESH_PROCESS, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    return done.stdout


def text_of_endpoint(ledger: Ledger) -> str:
    """What a process of the app answers by HTTP."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ledger.words[accounts.PORT]}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def read_again_and_again(ledger: Ledger, name: str, read: Callable[[], str], pause: float) -> None:
    """Scrape with pauses of so many seconds on average, until told to end."""
    ended = [False]
    signal.signal(signal.SIGTERM, lambda *_: ended.__setitem__(0, True))
    auditor = Auditor(ledger, name)
    while not ended[0]:
        auditor.scrape(read)
        time.sleep(random.random() * 2 * pause)


def settle_all(path: str) -> None:
    """Have a process that counts join, flush and end, so that the rows say it all."""
    script = "import sys, sqlmetrics; store = sqlmetrics.install(sys.argv[1]); store.flush(); store.flush()"
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)
