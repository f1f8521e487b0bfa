"""Requests at a steady rate to a gunicorn whose workers are killed now and then; when each was sent and answered."""

from __future__ import annotations

import itertools
import os
import signal
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from apps.serving import Server
from helpers import wait_for

PATHS = ("/", "/other")
LONGEST = 0.4
"""Seconds; what clients say is spread evenly between 0 and this."""
_STEPS = 80
_THREADS = 4


class Request(NamedTuple):
    """One request that was answered; times in seconds since the epoch."""

    number: int
    path: str
    seconds: float
    begun: float
    answered: float
    worker: int


def said(number: int) -> tuple[str, float]:
    """The path of a request, and the seconds that it tells: all values come in turn, in each path."""
    turn, path = divmod(number, len(PATHS))
    step = turn * 37 % _STEPS  # 37 has no divisor in common with the steps, so it goes through all of them
    return PATHS[path], LONGEST * (step + 0.5) / _STEPS


@dataclass
class Traffic:
    """The requests to one server. rate: requests per second. kill_every: seconds from one SIGKILL to the next."""

    server: Server
    rate: float
    kill_every: float
    requests: list[Request] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Send requests for so long. Each has to be answered well, and no worker is killed that has one in hand."""
        numbers = itertools.count()  # its next() is one step, so threads may share it
        with ThreadPoolExecutor(_THREADS + 1) as pool:
            begun = time.monotonic()
            senders = [pool.submit(self._send, numbers, begun, begun + seconds) for _ in range(_THREADS)]
            killer = pool.submit(self._kill, begun, begun + seconds)
        for one in (*senders, killer):
            one.result()

    def _send(self, numbers: Iterable[int], begun: float, end: float) -> None:
        for number in numbers:
            due = begun + number / self.rate
            if due >= end:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            path, seconds = said(number)
            sent = time.time()
            answer = self.server.get(f"{path}?seconds={seconds}&number={number}")
            self.requests.append(Request(number, path, seconds, sent, time.time(), answer.worker))

    def _kill(self, begun: float, end: float) -> None:
        for turn in itertools.count(1):
            due = begun + turn * self.kill_every
            if due >= end:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            victim, cut_off = self.server.hold()
            os.kill(victim, signal.SIGKILL)
            cut_off()
            wait_for(lambda pid=victim: f"(pid:{pid})" in self.server.log())
            self.killed.append(victim)


class Bounds:
    """What a counter of these requests may show, by what had been answered and what had been sent at a time."""

    def __init__(self, requests: Iterable[Request]) -> None:
        requests = list(requests)
        self._begun = sorted(request.begun for request in requests)
        self._answered = sorted(request.answered for request in requests)

    def least(self, time: float) -> int:
        """The requests whose answers had come before a time, in seconds since the epoch."""
        return bisect_left(self._answered, time)

    def most(self, time: float) -> int:
        """The requests that had been sent before a time."""
        return bisect_left(self._begun, time)


def interpolated(quantile: float, sent: Collection[Request], bounds: Collection[float]) -> tuple[float, float, float]:
    """The bucket in which a quantile of what was sent is, and where: with all in a bucket spread evenly over it."""
    rank = quantile * len(sent)
    below = 0
    for low, high in zip([0.0, *bounds], bounds, strict=False):
        inside = sum(low < request.seconds <= high for request in sent)
        if inside and below + inside >= rank:
            return low, low + (high - low) * (rank - below) / inside, high
        below += inside
    raise AssertionError("no bucket has it")
