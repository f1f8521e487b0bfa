"""The connections of one process, and the rule that none is open across a fork.

SQLite keeps a table of its open files in the process. A child inherits it, and a connection that the child
opens then believes to hold locks that it does not hold (https://www.sqlite.org/howtocorrupt.html, 2.6). So
every connection is closed before a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import apsw

from ..process import fork, native, under_uwsgi
from . import database
from .yielding import YieldedError


class Access:
    """One connection, used by one thread at a time, and opened when it is needed."""

    def __init__(self, path: str, connect: Callable[[str], database.StoreConnection] = database.connect):
        self._path = path
        self._connect = connect
        self._lock = native.RLock()
        self._connection: database.StoreConnection | None = None
        self._holder = 0  # the thread that uses it
        self._interrupted: int | None = None  # during a fork: the thread that was using it
        self._is_held = False  # for a fork

    @contextmanager
    def __call__(self) -> Iterator[database.StoreConnection]:
        """Give the connection to this thread; waits for other threads of this process, but not for other processes.

        Raises what `database.connect` does, and CutOffError if a file of the open connection was replaced. Then the
        connection stays open until `close`, so that `suspended` can read it for the last time.
        """
        with self._lock:
            self._holder = native.get_ident()
            try:
                yield self._open()
            except (apsw.InterruptError, fork.GaveWayError) as error:
                raise YieldedError("another thread forks") from error
            finally:
                self._holder = 0
                if under_uwsgi.forks_from_c():  # at any moment, so nothing stays open from one use to the next
                    self.close()

    def held_here(self) -> bool:
        """Whether this thread is using the connection (and was interrupted by a signal handler, say)."""
        return self._holder == native.get_ident()

    def keep_open(self) -> None:
        """Open the connection if it is closed: while it is open, what it reads is not lost if the files are deleted."""
        if self._connection is None and not under_uwsgi.forks_from_c():
            with self():
                pass

    def is_cut_off(self) -> bool:
        """Whether a connection is open and a file of it was deleted or replaced."""
        connection = self._connection
        if connection is not None and connection.is_copy and database.file_identity(self._path) == connection.opened[0]:
            self.close()  # the file that it is a copy of is back
            return False
        return connection is not None and not connection.is_in_place()

    def _open(self) -> database.StoreConnection:
        if self._connection is None:
            self._connection = self._connect(self._path)
        elif not self._connection.is_in_place():
            raise database.CutOffError(f"{self._path}: a file of the store was deleted or replaced")
        self._connection.user = native.get_ident()
        return self._connection

    def close(self) -> None:
        """Close the connection, if one is open; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def suspended(self) -> Iterator[database.StoreConnection | None]:
        """Give the open connection, if there is one, to code that makes new files, and close it afterwards.

        If that code fails, the connection stays open: only from it can be read what ended processes have left in
        deleted files.
        """
        with self._lock:
            if self._connection is not None:
                self._connection.user = native.get_ident()
            yield self._connection
            self.close()

    def close_idle(self) -> None:
        """Close the connection unless a thread is using it."""
        with self._lock:
            if not self._holder:
                self.close()

    def before_fork(self) -> None:
        """Wait for other threads, and close the connection. Not even a signal handler opens it before the fork."""
        if not fork.acquire(self._lock):
            self._interrupted = self._holder or -1
            return
        self._is_held = True
        self._interrupted = self._holder
        if not self._interrupted:
            self._close_for_fork()
        self._holder = native.get_ident()

    def _close_for_fork(self) -> None:
        """Close the connection; if its files were deleted, keep a copy, as nothing else may be left of them."""
        connection = self._connection
        if connection is None or connection.is_copy:
            return
        with suppress(apsw.Error, OSError):  # damaged, say, or the system fails to tell what is there
            if not connection.is_in_place():
                self._connection = connection.in_memory()
                connection.close()
                return
        self.close()

    def after_fork_in_parent(self) -> None:
        """Let threads use the connection again."""
        if self._is_held:
            self._is_held = False
            self._holder = self._interrupted or 0
            self._interrupted = None
            self._lock.release()
        else:
            self._interrupted = None

    def after_fork_in_child(self) -> Access:
        """Return the object that replaces this one in a child, whether or not `before_fork` was run.

        If it was not (a fork from C), an idle connection is closed here, before any other is opened. A connection in
        the middle of a call cannot be closed, and stays as it is.
        """
        heir = Access(self._path, self._connect)
        in_use = self._holder if self._interrupted is None else self._interrupted
        if in_use:
            _leaked.append(self)  # while it exists, `yielding` refuses to open another connection
        else:
            self.close()
        return heir


_leaked: list[Access] = []
