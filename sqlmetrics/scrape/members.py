"""The processes of a store, one by one: their names, whether they are alive, and how much of their data is in rows."""

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

    pid: the result of its process identifier. os_pid: its pid in its own pid namespace, which has that inode.
    seen_pid: its pid in this process's pid namespace; 0 if it is not visible from here, or dead.
    Times are seconds since the epoch. started: None if its own record makes no sense. died: when it was settled; None
    before. flushed: the rows have all that it had counted up to this time; None before the first flush. unflushed:
    whether it has more now.
    series: how many samples it has. blocks, extents: its pages of the cells file. journal: bytes of its journal;
    committed: how many of them are rows.
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
    """Return all processes that the store has, the oldest first, within a read transaction.

    living: those that are not settled; said: their own records, as far as journals have them; announced: how many
    samples without a row each has. All by instance.
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
    """Return a process that is not settled. slot: -1 if it was freed meanwhile."""
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
