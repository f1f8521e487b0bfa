"""How long an operation on a known child waits at worst, in a process with very many, while the store is disturbed.

The time in which its thread was ready and had no processor is left out: another program's doing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .comparison import expect
from .process import Side, sides
from .sizes import Sizes
from .table import Row

if TYPE_CHECKING:
    from .library import Metrics

SUFFIXES = ("", "-wal", "-shm", "-cells")
REMOVALS = 3
_DISK_BYTES = 256 * 2**20
_LEFT_BYTES = 8192
_PAUSE = 1.0
"""Seconds before, and between, what disturbs the store."""


def make_known(metrics: Metrics, children: int) -> None:
    """Count once in each of so many children; with room for them, until all are rows."""
    import sqlmetrics

    store = sqlmetrics.install()
    for number in range(children):
        metrics.hits.labels(f"/hit/{number}").inc()
    deadline = time.monotonic() + 120
    while store.is_open() and any(arena.has_news() for arena in store.part.arenas()):
        assert time.monotonic() < deadline, "the children are not in rows"
        time.sleep(0.1)


def longest_inc(metrics: Metrics, seconds: float) -> tuple[float, int]:
    """Count in one child for some time; returns the seconds of the slowest operation, and how many there were."""
    child, longest, count = metrics.hits.labels("/hit/0"), 0.0, 0
    gc.disable()  # CPython's own collections are not what is measured
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        ready, start = _ready(), time.perf_counter()
        child.inc()
        took = time.perf_counter() - start
        longest = max(longest, took - (_ready() - ready))
        count += 1
        time.sleep(0.001)
    gc.enable()
    return longest, count


def _ready() -> float:
    """Seconds in which this thread was ready and had no processor; see schedstat in proc(5)."""
    with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


def measure(folder: str, sizes: Sizes) -> Iterator[Row]:
    """One row for each thing that may happen; each time, all that was counted must be there afterwards."""
    events: dict[str, Callable[[str, Sizes], float]] = {
        "another removes a series": _during_removals,
        "the files are replaced": _during_replacement,
        "a full disk has room again": _after_full_disk,
    }
    for what, event in events.items():
        name = f"worst inc() of {sizes.known:,}, {what}"
        try:
            times = {"sqlmetrics": [event(folder, sizes) for _ in range(sizes.wait_rounds)]}
            yield Row(name, times, "ms", most=0.02)
        except PermissionError:
            yield Row(name, {}, "ms", most=0.02, notes={"sqlmetrics": "no mount"})


def _during_removals(folder: str, sizes: Sizes) -> float:
    with sides(folder, "sqlmetrics") as running:
        side = running["sqlmetrics"]
        side.ask("make_known", children=sizes.known)
        other = side.another()

        def remove() -> None:
            for number in range(1, REMOVALS + 1):
                time.sleep(_PAUSE)
                other.ask("remove", path=f"/hit/{number}")

        longest = _longest(side, sizes, remove, sizes.known - REMOVALS)
        other.close()
    return longest


def _during_replacement(folder: str, sizes: Sizes) -> float:
    with sides(folder, "sqlmetrics") as running:
        side = running["sqlmetrics"]
        side.ask("make_known", children=sizes.known)

        def delete() -> None:
            time.sleep(_PAUSE)
            for suffix in SUFFIXES:
                os.unlink(f"{side.folder}/metrics.sqlite3{suffix}")

        return _longest(side, sizes, delete, sizes.known)


def _after_full_disk(folder: str, sizes: Sizes) -> float:
    """Raises PermissionError where no disk can be mounted."""
    with _disk(folder) as place:
        filler = f"{place}/filler"
        with open(filler, "wb") as file:
            room = os.statvfs(place)
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - _LEFT_BYTES)
        side = Side("sqlmetrics", place, sys.executable)
        side.ask("make_known", children=sizes.known)

        def free() -> None:
            time.sleep(_PAUSE)
            os.unlink(filler)

        longest = _longest(side, sizes, free, sizes.known)
        side.close()
    return longest


@contextlib.contextmanager
def _disk(folder: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="disk", dir=folder) as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", place]
        if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            raise PermissionError("no tmpfs can be mounted")
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def _longest(side: Side, sizes: Sizes, disturb: Callable[[], None], others: int) -> float:
    """others: what is counted besides."""
    side.tell("longest_inc", seconds=sizes.wait_seconds)
    disturb()
    longest, count = side.hear()
    shown = sum(value for line, value in side.ask("content", family="hits").items() if line.startswith("hits_total "))
    expect("what was counted while the store was disturbed", shown, others + count)
    return float(longest)
