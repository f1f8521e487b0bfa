"""The slots of the cells file: whatever the interleaving of claims, settlings and looks, and wherever one is killed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from interleavings import Search, Shared, Tape

from sqlmetrics.cells import layout, locks
from sqlmetrics.cells.cellsfile import CellsFile, Header
from sqlmetrics.rows import checkup, ingest

pytestmark = pytest.mark.promise(3)

FIRST = 1000
"""The uses of a slot that was never used."""
STATES = {"free": layout.FREE, "live": layout.HELD, "settled": layout.SETTLED, "claimed": layout.CLAIMED}
BEFORE = {
    "never used": ("free", FIRST, None),
    "used and let go": ("free", FIRST + 1, FIRST + 1),
    "dead": ("live", FIRST + 1, None),
    "settled in the rows": ("live", FIRST + 1, FIRST + 1),
    "settled in both": ("settled", FIRST + 1, FIRST + 1),
    "killed before it raised the uses": ("claimed", FIRST + 1, FIRST + 1),
    "killed after it raised the uses": ("claimed", FIRST + 2, FIRST + 1),
}
"""State and uses of the only slot, and which use of it the rows know as settled."""


class Array:
    """One of the directory's arrays, of a single slot: each load and each store is a step of its own."""

    def __init__(self, tape: Tape, name: str, kind: str):
        self._tape, self._name, self._kind = tape, name, kind

    def __getitem__(self, _: int) -> int:
        return int(self._tape.ask(lambda shared, _: shared[self._name]))

    def __setitem__(self, _: int, value: int) -> None:
        self._tape.ask(lambda shared, _: shared.__setitem__(self._name, value))

    def __bytes__(self) -> bytes:
        return struct.pack(self._kind, self[0])


class Rows:
    """Stands for the connection of a process: the one table of the rows that slots are about."""

    def __init__(self, tape: Tape):
        self._tape = tape

    def execute(self, sql: str, _: object = ()) -> Any:
        """The settled instance of the slot."""
        assert "settled FROM slot" in sql
        settled = self._tape.ask(lambda shared, _: shared["settled"])
        return SimpleNamespace(get=settled, fetchall=lambda: [] if settled is None else [(0, settled)])


class World:
    """Processes of one small store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.tape = Tape()
        self.rows: Any = Rows(self.tape)
        monkeypatch.setattr(locks, "try_lock", self._try_lock)
        monkeypatch.setattr(locks, "unlock", self._unlock)
        monkeypatch.setattr(locks, "is_locked", self._is_locked)

    def _try_lock(self, _: int, offset: int) -> Any:
        def request(shared: Shared, name: str) -> bool:
            held = dict(shared["locks"])
            if held.setdefault(offset, name) != name:
                return False
            shared["locks"] = tuple(sorted(held.items()))
            return True

        return self.tape.ask(request)

    def _unlock(self, _: int, offset: int) -> None:
        def request(shared: Shared, name: str) -> None:
            shared["locks"] = tuple(one for one in shared["locks"] if one != (offset, name))

        self.tape.ask(request)

    def _is_locked(self, _: int, offset: int) -> Any:
        return self.tape.ask(lambda shared, name: dict(shared["locks"]).get(offset, name) != name)

    def file(self) -> CellsFile:
        """The cells file as one process has it mapped."""
        file: Any = CellsFile.__new__(CellsFile)
        file._mapped, file._spare, file._settlers = SimpleNamespace(fd=-1), [], {}
        for name, kind in (("states", "B"), ("stale", "B"), ("uses", "I"), ("published", "Q"), ("lapsed", "B")):
            setattr(file, name, Array(self.tape, name, kind))
        file._uses_bytes = file.uses
        file.blocks = file.extents = SimpleNamespace(free=lambda *_, **__: self.tape.ask(self._free))
        file.header = lambda: Header("", "", "", FIRST)
        file.own_slots = set()
        return file  # type: ignore[no-any-return]

    @staticmethod
    def _free(shared: Shared, _: str) -> None:
        holder = dict(shared["locks"]).get(layout.STATE_AT)
        assert holder is None, f"the blocks of {holder}, which lives, are given to others"

    # --- what the processes do ----------------------------------------------------------------------------

    def count(self) -> None:
        """Claim the slot, be somebody nobody was before, and end."""
        file = self.file()
        if self.tape.ask(lambda shared, _: layout.STATE_AT in dict(shared["locks"])):
            return  # somebody lives there
        try:
            slot = file.claim_slot()
        except OSError:
            return
        instance = layout.instance_of(file.uses[slot], slot)

        def request(shared: Shared, name: str) -> None:
            assert instance not in dict(shared["instances"]).values(), f"instance {instance} is given twice"
            assert shared["settled"] != instance, f"instance {instance} is settled before it has begun"
            shared["instances"] = (*shared["instances"], (name, instance))

        self.tape.ask(request)

    def settle(self) -> None:
        """What `settle.settling` and `settle.settle_dead` do, with the real functions for what they do to the cells."""
        file = self.file()
        if not self._try_lock(-1, -1):  # SQLite's write lock
            return
        seized = [one for one in file.held_slots() if file.seize(one[0], self)]
        unsettled = [one for one in seized if not ingest.is_settled(self.rows, file, *one)]
        if unsettled:
            self.tape.ask(lambda shared, _: self._commit(shared, unsettled[0][1]))
        self._unlock(-1, -1)
        for one in seized:
            file.retire_slot(*one, self)

    @staticmethod
    def _commit(shared: Shared, instance: int) -> None:
        assert instance not in shared["folded"], f"instance {instance} is folded twice"
        living = [n for n, i in shared["instances"] if i == instance and (layout.STATE_AT, n) in shared["locks"]]
        assert not living, f"{living} is folded while it lives"
        shared["folded"] = (*shared["folded"], instance)
        shared["settled"] = instance

    def look(self) -> None:
        """What is asked before files are made anew: the answer must always be that they are in order."""
        fits = checkup.knows_the_settled(self.rows, self.file())

        def request(_: Shared, __: str) -> None:
            assert fits, "the rows are taken for an older copy"

        self.tape.ask(request)

    @staticmethod
    def killed(shared: Shared, name: str) -> None:
        """The kernel drops the locks of a process that is gone."""
        shared["locks"] = tuple(one for one in shared["locks"] if one[1] != name)


def start(state: str, uses: int, settled: int | None) -> Shared:
    """What is shared at the beginning; the stale byte is of no use to these processes."""
    return {
        "states": STATES[state],
        "uses": uses,
        "stale": 0,
        "published": 0,
        "lapsed": 0,
        "locks": (),
        "settled": None if settled is None else layout.instance_of(settled, 0),
        "instances": (),
        "folded": (),
    }


CREWS: dict[str, Callable[[World], dict[str, Callable[[], None]]]] = {
    "a claim, a settler, a look": lambda w: {"c": w.count, "s": w.settle, "l": w.look},
    "two claims and a look": lambda w: {"c": w.count, "d": w.count, "l": w.look},
    "two settlers and a look": lambda w: {"s": w.settle, "t": w.settle, "l": w.look},
    "two settlers and a claim": lambda w: {"s": w.settle, "t": w.settle, "c": w.count},
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("crew", CREWS)
@pytest.mark.slow
def test_every_interleaving_and_kill_leaves_the_slots_true(
    monkeypatch: pytest.MonkeyPatch, crew: str, before: str
) -> None:
    """No look takes the rows for an older copy, no instance is given or folded twice, none is folded while it lives."""
    world = World(monkeypatch)
    search = Search(world.tape, CREWS[crew](world), world.killed)
    search.run(start(*BEFORE[before]))
    assert len(search.seen) > 100
    assert search.ends
