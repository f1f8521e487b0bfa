"""One scrape: a consistent reading of rows, cells and journals, with no lock that anybody waits for.

1. Note which processes are not settled yet.
2. In one read transaction, find out which of them are alive, and read what they have announced since the last scrape.
3. Note the generation of each block (the census), check that none of these processes was settled since, and read their
   cells. If a block has a new generation since this census, or since one before the transaction, its cells may have new
   owners: begin again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import apsw

from .. import config
from ..cells import journal
from ..cells.cellsfile import CellsFile, open_cells
from ..cells.figures import Figures, Waiting
from ..errors import DamagedError
from ..process import fork, waits
from ..process.trouble import Trouble
from ..rows import database, files, fold, nonsense, settle
from ..rows.connections import Access
from ..rows.damage import is_damage, unreadable
from ..rows.removal import sweep_infos
from ..rows.renew import CELLS_SUFFIX
from ..rows.wal import wal_bytes, wal_limit
from . import about
from .families import FamilySamples
from .reading import Remembered, Scrape
from .wanted import Wanted

A = TypeVar("A")
T = TypeVar("T")
Finish = Callable[[list[FamilySamples], dict[object, Any]], T]
_TRIES = 100
_UNDISTURBED = 2
"""After so many tries that were disturbed, by removals all the time, every other try keeps writers out."""
_FEW = 8
"""If more dead processes than this are not settled, a scrape settles them first, and so reads their journals only once.
If there are fewer, it shows them as dead (`sqlmetrics_processes`), and settles them afterwards."""
_PAUSE = 0.02
"""Seconds until the next try if the store was busy; that makes two seconds in all."""


class _UnfinishedError(Exception):
    """The caller's part of a scrape has raised an error, which says nothing about the store."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


@dataclass(frozen=True)
class Question(Generic[A, T]):
    """What a caller asks a reader.

    answer: called within the read transaction, and again if cells have got new owners meanwhile.
    finish: makes the result from the answer, and from what it has kept from earlier scrapes.
    """

    wanted: Wanted
    answer: Callable[[Scrape], A]
    finish: Callable[[A, dict[object, Any]], T]


class Reader(fork.ForkAware):
    """Answers scrapes of one store in this process."""

    def __init__(self, path: str, connect: Callable[[str], database.StoreConnection] = database.connect):
        self.path = path
        self._connect = connect
        self._access = Access(path, connect)
        self._remembered = Remembered()
        self.keep_dead = config.Settings.keep_dead
        """How many ended processes are remembered; see `config.Settings`."""
        self.trouble = Trouble()
        self.figures = Figures(self.trouble)
        """Trouble and figures of a process that does not count in the store."""
        fork.register(self)

    def close(self) -> None:
        """Close the connection, after other threads' scrapes. The next scrape opens another one."""
        self._access.close_idle()

    def before_fork(self) -> None:
        """Have no connection open at the fork."""
        self._access.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._access.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Use a connection of this process's own."""
        self._access = self._access.after_fork_in_child()
        self._remembered = Remembered()
        self.trouble = Trouble()
        self.figures = Figures(self.trouble)

    def tell(self) -> None:
        """Log senseless records in the journals of processes that this one has settled. Call it with no lock held."""
        nonsense.tell(self.path, self.trouble)
        self.trouble.write_log()

    def scrape(self, wanted: Wanted, finish: Finish[T], figures: Figures | None = None) -> T:
        """Scrape, note how long it took, and return what `finish` makes of the families; see `read`.

        figures: those of this process, if it counts in the store.
        """
        begun = time.perf_counter()
        noted = figures or self.figures
        own = noted.bring() if wanted.self_metrics else None
        result = self.read(wanted, own=own, finish=finish)
        noted.took("scrape", time.perf_counter() - begun)
        if figures is None:  # otherwise the flusher does it
            self.tell()
        return result

    def read(self, wanted: Wanted, *, own: Waiting | None, finish: Finish[T]) -> T:
        """Return what `finish` makes of the wanted families, with the totals of all processes.

        own: this process's figures that are not in the store yet; None if families about the store are not wanted.
        finish: gets the families, and what it has kept from earlier scrapes. It must not keep the families, because the
            next scrape adds to them.
        Raises NoStoreError, StoreError (DamagedError if a process that writes to the store has to mend it) or
        apsw.Error.
        """

        def answer(scrape: Scrape) -> tuple[list[FamilySamples], list[FamilySamples]]:
            return scrape.result(), scrape.about() if own is not None else []

        def assemble(answer: tuple[list[FamilySamples], list[FamilySamples]], kept: dict[object, Any]) -> T:
            return finish(about.assembled(*answer, own, wanted.names), kept)

        return self.ask(Question(wanted, answer, assemble))

    def ask(self, question: Question[A, T]) -> T:
        """Return the finished answer to a question. Raises as `read` does."""
        fork.notice()
        try:
            return self._ask(question)
        except _UnfinishedError as error:
            raise error.error from None
        except Exception as error:
            if not is_damage(error):
                raise
            self._access.close_idle()
            self._doubt()
            raise unreadable(error, self.path) from error

    def _doubt(self) -> None:
        """Ask processes that write to check the files; but a reader that only looks changes no byte of them."""
        if self._connect is not database.connect:
            return
        with contextlib.suppress(OSError):
            file = open_cells(self.path + CELLS_SUFFIX, writable=True)
            if file is not None:
                file.doubt()

    def _ask(self, question: Question[A, T]) -> T:
        busy: apsw.Error | None = None
        for number in range(_TRIES):
            kind = "IMMEDIATE" if number >= _UNDISTURBED and number % 2 == 0 else "DEFERRED"
            try:
                result = self._try(question, kind)
            except apsw.ReadOnlyError:
                if kind == "DEFERRED":
                    raise
                continue
            except (apsw.BusyError, apsw.IOError) as error:
                if is_damage(error):
                    raise
                busy = error  # the files are being made anew, or another program keeps them locked
                time.sleep(_PAUSE)
                continue
            if result is not None:
                return result[0]
            busy = None  # it could be read, but was disturbed
        raise busy or DamagedError(
            f"rows and cells do not fit together, or change faster than they are read: {_TRIES} tries"
        )

    def _try(self, question: Question[A, T], kind: str) -> tuple[T] | None:
        """Make one try; None if a process was settled, or cells got new owners, meanwhile.

        kind: of the transaction.
        """
        if self._access.held_here():  # this is a signal handler in the middle of a scrape
            with contextlib.closing(Access(self.path, self._connect)) as access:
                return self._try_with(access, Remembered(), question, kind)
        if self._access.is_cut_off():
            self._access.close_idle()
        return self._try_with(self._access, self._remembered, question, kind)

    def _try_with(self, access: Access, remembered: Remembered, question: Question[A, T], kind: str) -> tuple[T] | None:
        with access() as connection:
            file = files.open_existing(connection, self.path)
            if sum(not file.is_alive(slot) for slot, _ in file.held_slots()) > _FEW:
                _settle_if_free(connection, file, self.keep_dead)
            slots, before = file.held_slots(), file.blocks.census()
            remembered.tables_of(connection)
            try:
                with database.transaction(connection, kind):
                    scrape = Scrape(connection, file, remembered, question.wanted, slots)
                    found = question.answer(scrape)
            except journal.JournalGoneError:
                remembered.tables = None  # their rows were rolled back
                return None
            except BaseException:  # it may be half up to date
                remembered.forget()
                raise
            # Compared with a census before the snapshot: a cell in its rows may belong to another child by now.
            if file.blocks.changed(before) or file.blocks.changed(scrape.census) or connection.is_torn():
                return None
            try:
                result = question.finish(found, remembered.kept)
            except Exception as error:
                raise _UnfinishedError(error) from error
            if scrape.saw_dead():
                _settle_if_free(connection, file, self.keep_dead)
            return (result,)


def _settle_if_free(connection: apsw.Connection, file: CellsFile, keep_dead: int) -> None:
    """Settle dead processes, unless another process is writing: then the next flush or scrape does it."""
    if not file.writable or wal_bytes(connection.filename) > wal_limit(connection.filename):
        return
    database.wait_for_others(connection, 0)
    try:
        with settle.settling(connection, file) as settled:
            settle.settle_dead(connection, file, settled, "scrape")
            fold.forget_oldest(connection, keep_dead)
            sweep_infos(connection, file)
    except apsw.Error:
        pass  # busy, read-only or full: a process that can write will do it
    finally:
        database.wait_for_others(connection, waits.WRITE_LOCK)
