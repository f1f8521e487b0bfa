"""The account outside of the store: what was begun and what was done, by thread, in a mapped file of its own.

A thread has a seat, and is the only one that writes there: it raises `begun`, makes the operation, and raises `done`.
So a kill at any instruction leaves at most one operation of each thread that may or may not have counted.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GROUPS = 32
"""Processes that the coordinator runs at one time."""
THREADS = 3
"""Of a process; the group's last seat is that of the process which it forks."""
PER_GROUP = THREADS + 1
SEATS = GROUPS * PER_GROUP
PATHS = 4
"""Series of the counters that all processes share."""

BY_SEAT = ("seat", "seconds", "size")
SHARED = tuple(f"shared{number}" for number in range(PATHS))
GONE = tuple(f"gone{number}" for number in range(PATHS))
COLUMNS = (*BY_SEAT, *SHARED, "plain", "fresh", *GONE, "top")
WIDTH = 2 * len(COLUMNS)

# Words of the header.
ROOM, FILES, GATE, PORT, CALM, STILL = range(6)
"""ROOM: how often the disk got full or had room again: odd while new children may be missing in scrapes.
FILES: how often files were deleted or were in order again: odd while scrapes may show less, or fail.
GATE: bursts that have been released. PORT: of the HTTP endpoint. CALM: whether nobody may end or be killed now.
STILL: whether nobody may begin an operation: while all count, a few that are missing cannot be told."""
_REMOVALS = 16
"""Where the removals' words begin, three for each series; see `Snapshot.removal`."""
_LIVES = _REMOVALS + 3 * PATHS
"""Where the groups' states begin."""
_HAS_SET = _LIVES + GROUPS
"""Where a group's process notes which one it is once it has set its gauge."""
_FORKED = _HAS_SET + GROUPS
"""Where it says whether a group has a forked process."""
_HEADER = _FORKED + GROUPS
SIZE = 8 * (_HEADER + SEATS * WIDTH)

NOBODY, BEGINS, LIVES, ENDS = range(4)
"""States of a group, beside which its word counts its processes."""


class Snapshot:
    """A copy of the account at one time."""

    def __init__(self, data: bytes):
        words = array.array("q")
        words.frombytes(data)
        self.header, self._seats = words[:_HEADER], words[_HEADER:]

    def begun(self, column: str, seat: int | None = None) -> int:
        """Operations that were begun, of one seat or of all."""
        return self._sum(2 * COLUMNS.index(column), seat)

    def done(self, column: str, seat: int | None = None) -> int:
        """Operations that have returned, of one seat or of all."""
        return self._sum(2 * COLUMNS.index(column) + 1, seat)

    def _sum(self, at: int, seat: int | None) -> int:
        return sum(self._seats[at::WIDTH]) if seat is None else self._seats[seat * WIDTH + at]

    def greatest(self) -> tuple[int, int]:
        """The greatest number that was set, and that may have been."""
        at = 2 * COLUMNS.index("top")
        return max(self._seats[at + 1 :: WIDTH]), max(self._seats[at::WIDTH])

    def removal(self, number: int) -> tuple[int, int, int]:
        """Of a series: the turn (odd while it is being removed), what was done before the last removal began, and what
        was begun when that had ended."""
        at = _REMOVALS + 3 * number
        return self.header[at], self.header[at + 1], self.header[at + 2]

    def lives(self) -> list[tuple[int, int]]:
        """(how many processes a group has had, state of the last one) for each group."""
        found = [divmod(word, 4) for word in self.header[_LIVES : _LIVES + GROUPS]]
        have_set = self.header[_HAS_SET : _HAS_SET + GROUPS]
        return [
            (n, LIVES if state == BEGINS and n == at else state) for (n, state), at in zip(found, have_set, strict=True)
        ]

    def turn(self, *which: int) -> tuple[int, ...] | None:
        """Where `ROOM` or `FILES` stand; None while there is trouble with one of them."""
        found = tuple(self.header[one] for one in which)
        return None if any(one % 2 for one in found) else found


class Ledger:
    """The account, as each process maps it."""

    def __init__(self, folder: str):
        self.folder = folder
        descriptor = os.open(os.path.join(folder, "ledger"), os.O_RDWR | os.O_CREAT)
        os.ftruncate(descriptor, SIZE)
        self._map = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)
        self.words = memoryview(self._map).cast("q")

    def snapshot(self) -> Snapshot:
        """All of it, now."""
        return Snapshot(self._map[:])

    def recorded(self, seat: int) -> Callable[[str, Callable[[], object]], None]:
        """What makes an operation of a column and keeps account of it, for the thread that has this seat."""
        words, first = self.words, _HEADER + seat * WIDTH
        begun = {name: first + 2 * number for number, name in enumerate(COLUMNS)}

        def record(column: str, operation: Callable[[], object]) -> None:
            at = begun[column]
            words[at] += 1
            operation()
            words[at + 1] += 1

        return record

    def set_greatest(self, seat: int, number: int, operation: Callable[[], object]) -> None:
        """Keep account of a gauge of mode `max`."""
        at = _HEADER + seat * WIDTH + 2 * COLUMNS.index("top")
        self.words[at] = number
        operation()
        self.words[at + 1] = number

    def resolve(self, seat: int, column: str, done: int, begun: int) -> None:
        """Nobody has this seat any more, and a scrape said what has counted: from now on no less is right."""
        at = _HEADER + seat * WIDTH + 2 * COLUMNS.index(column)
        self.words[at], self.words[at + 1] = begun, done

    @contextmanager
    def removing(self, number: int) -> Iterator[None]:
        """While a series is removed; what is done before is gone afterwards, what begins afterwards stays."""
        at = _REMOVALS + 3 * number
        self.words[at] += 1
        before = self.snapshot().done(GONE[number])
        yield
        self.words[at + 1], self.words[at + 2] = before, self.snapshot().begun(GONE[number])
        self.words[at] += 1

    def live(self, group: int, state: int) -> None:
        """For the coordinator: note what a group's process does; BEGINS counts it."""
        count = self.words[_LIVES + group] // 4 + (state == BEGINS)
        self.words[_LIVES + group] = 4 * count + state

    def has_set(self, group: int) -> None:
        """For the process: note that its gauge is set."""
        self.words[_HAS_SET + group] = self.words[_LIVES + group] // 4

    def note_fork(self, group: int, has_forked: bool) -> None:
        """Note whether a group has a forked process."""
        self.words[_FORKED + group] = has_forked

    def forked(self) -> int:
        """How many processes live that others than the coordinator have forked."""
        return sum(self.words[_FORKED : _FORKED + GROUPS])

    def say(self, kind: str, *what: object) -> None:
        """Append to the log of all processes: a line of [time, kind, pid, what]."""
        line = json.dumps([time.monotonic(), kind, os.getpid(), *what], default=str)
        descriptor = os.open(os.path.join(self.folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line.encode() + b"\n")
        os.close(descriptor)

    def said(self) -> list[list[object]]:
        """All lines of the log."""
        with open(os.path.join(self.folder, "log")) as file:
            return sorted((json.loads(line) for line in file), key=lambda line: line[0])
