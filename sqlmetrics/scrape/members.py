"""The processes of a store, one by one: who they are, whether they live, and how much of theirs is in rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import apsw

from ..cells import layout
from ..cells.cellsfile import CellsFile
from ..cells.records import ProcessRecord
from ..rows import behind
from ..rows.ingest import storable
from .tables import Living

SELECT_MEMBERS = """
SELECT id, pid, os_pid, pid_namespace, started, journal, flushed, died,
       (SELECT count(*) FROM cell_copy WHERE cell_copy.process = instance.id)
         + (SELECT count(*) FROM kept WHERE kept.process = instance.id)
  FROM instance
"""


class Member(NamedTuple):
    """A process of a store.

    pid: what its process identifier gave. os_pid: what it is called in its own pid namespace, of that inode.
    seen_pid: what the kernel calls it in this process's pid namespace; 0 if it is not seen from here, or dead.
    Times are seconds since the epoch. started: None if what it says of itself makes no sense. died: when it was
    settled, None before. flushed: all that it had counted by then is in rows, None before the first flush; unflushed:
    whether there is more now.
    series: of which it has samples; blocks, extents: pages of the cells file that it holds; journal, committed: bytes
    of its journal, and of these those that are rows.
    """

    pid: str
    os_pid: int
    pid_namespace: int
    seen_pid: int
    started: float | None
    alive: bool
    died: float | None
    flushed: float | None
    unflushed: bool
    series: int
    blocks: int
    extents: int
    journal: int
    committed: int


def members(
    connection: apsw.Connection,
    file: CellsFile,
    living: Mapping[int, Living],
    said: Mapping[int, ProcessRecord],
    announced: Mapping[int, int],
) -> list[Member]:
    """All that the store knows of, within a read transaction; the eldest first.

    living: who is not settled; said: what some of them say of themselves; announced: how many series of each have no
    row yet. All by instance.
    """
    rows: Any = connection.execute(SELECT_MEMBERS).fetchall()
    known = {row[0]: row[1:] for row in rows}
    slots = {instance: slot for slot, instance in file.held_slots()}
    found = [
        _present(connection, file, slots.get(one.id, -1), one, known.get(one.id), said.get(one.id), announced)
        for one in living.values()
    ]
    found += [_remembered(known[instance]) for instance in known.keys() - living.keys()]
    return sorted(found, key=lambda one: (one.started or 0.0, one.os_pid))


def _present(
    connection: apsw.Connection,
    file: CellsFile,
    slot: int,
    living: Living,
    row: Any,
    said: ProcessRecord | None,
    announced: Mapping[int, int],
) -> Member:
    """A process that is not settled. slot: -1 if that was freed since."""
    if row is None:
        of = (storable(said.pid), said.os_pid, said.pid_namespace, said.started) if said else (living.pid, 0, 0, None)
        row = (*of, 0, None, None, 0)
    pid, os_pid, namespace, started, committed, flushed, _, series = row
    is_there = slot >= 0
    journal = file.published[slot] if is_there else 0
    return Member(
        pid=pid,
        os_pid=os_pid,
        pid_namespace=namespace,
        seen_pid=file.holder(slot) if is_there and living.alive else 0,
        started=started,
        alive=living.alive,
        died=None,
        flushed=flushed,
        unflushed=journal > committed or (is_there and behind.has_other_values(connection, file, slot, living.id)),
        series=series + announced.get(living.id, 0),
        blocks=len(file.blocks.owned_by(slot)) if is_there else 0,
        extents=-(-journal // layout.EXTENT_PAYLOAD),
        journal=journal,
        committed=committed,
    )


def _remembered(row: Any) -> Member:
    pid, os_pid, namespace, started, _, flushed, died, series = row
    return Member(pid, os_pid, namespace, 0, started, False, died, flushed, False, series, 0, 0, 0, 0)
