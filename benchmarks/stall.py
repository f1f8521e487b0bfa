"""How long an event loop stands still during a scrape, and what another thread gets done meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .comparison import expect
from .library import Library
from .process import sides
from .sizes import Sizes
from .table import Row

TICK = 0.0005
"""Seconds after which the loop's other task wants to go on."""
SPAN = 1.0
"""Seconds, at least, in which the other thread counts with and without scrapes."""


def longest_stall(library: Library, number: str) -> tuple[float, str]:
    """Scrape through the library's own ASGI app; returns seconds, and the line of the beat of that number."""
    if library.side == "sqlmetrics":
        import sqlmetrics

        app = sqlmetrics.make_asgi_app()
    else:
        from prometheus_client import make_asgi_app

        app = make_asgi_app(library.scraped)
    return asyncio.run(_scrape(app, number))


async def _scrape(app: Any, number: str) -> tuple[float, str]:
    bodies: list[bytes] = []

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(event: dict[str, Any]) -> None:
        bodies.append(event.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
    ticker = _Ticker()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0.05)
    await app(scope, receive, send)
    await asyncio.sleep(0.01)
    ticking.cancel()
    lines = b"".join(bodies).decode().splitlines()
    return ticker.longest, next(line for line in lines if line.startswith(f'beats_total{{number="{number}"}}'))


class _Ticker:
    """Another task of the loop, which notes how late it was."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Go on until it is cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.perf_counter() - before - TICK)


class _Counting(threading.Thread):
    """Another thread, which counts as fast as it can: what it gets done is what the interpreter lock lets it do."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.is_ending = False

    def run(self) -> None:
        """Count until it is told to end."""
        while not self.is_ending:
            self.count += 1


def share_of_another_thread(library: Library) -> float:
    """What another thread gets done in a second while this one scrapes, as a part of what it gets done otherwise."""
    thread = _Counting()
    thread.start()
    alone = _rate(thread, lambda: time.sleep(SPAN))
    beside = _rate(thread, library.own_text)
    thread.is_ending = True
    thread.join()
    return beside / alone


def _rate(thread: _Counting, action: Callable[[], object]) -> float:
    begun, start = thread.count, time.perf_counter()
    while time.perf_counter() - start < SPAN:
        action()
    return (thread.count - begun) / (time.perf_counter() - start)


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """In the process that the crowd was forked from."""
    with sides(folder, "mmap", "sqlmetrics") as running:
        for side in running.values():
            side.ask("gather", members=sizes.members, children=sizes.children)
        time.sleep(5)
        times: dict[str, list[float]] = {name: [] for name in running}
        for number in range(-1, sizes.scrape_rounds):
            for name, side in running.items():
                label, value = side.ask("count", member=number % sizes.members, new_series=False)
                seconds, line = side.ask("stall", number=label)
                expect(f"what {name} shows of something that was just counted", float(line.split()[-1]), value)
                if number >= 0:
                    times[name].append(seconds)
        shares: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(sizes.slow_rounds + 1):
            for name, side in running.items():
                shares[name].append(side.ask("share_of_another_thread"))
    yield Row("longest stall of an event loop during a scrape", times, "ms", target=0.015)
    yield Row("another thread's work during scrapes, of all", shares, "%", larger=True)
