"""An app that counts by processes which come and go, and knows how much: ``python fleet_app.py PATH``.

It is told ``count`` or ``idle`` line by line, and answers with all that it has counted.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from prometheus_client import Counter

import sqlmetrics

EVENTS = Counter("events", "What happened")
EACH = 5
"""How much a process counts before it ends, by itself or by SIGKILL."""


def count_in_a_process(number: int) -> None:
    """Fork one, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        for _ in range(EACH):
            EVENTS.inc()
        if number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    os.waitpid(pid, 0)


def main(path: str) -> None:
    """Do as it is told until the input ends."""
    sqlmetrics.install(path)
    EVENTS.inc(0)
    print(0, flush=True)
    processes, is_counting = 0, False
    while True:
        if select.select([sys.stdin], [], [], 0.2)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            is_counting = line == "count\n"
            print(processes * EACH, flush=True)
        if is_counting:
            count_in_a_process(processes)
            processes += 1


if __name__ == "__main__":
    main(sys.argv[1])
