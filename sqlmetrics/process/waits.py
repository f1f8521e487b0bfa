"""How long each piece of code waits for others, in seconds. Times that wait for nobody stand where they are used."""

from __future__ import annotations

# --- for SQLite's write lock, which one process has at a time
WRITE_LOCK = 0.02
"""One try. A longer one would keep a fork waiting; code that can wait longer tries again."""
CALL = 1.0
"""A call of the app that has to write: `flush()`, `mark_process_dead()`, a removal, a reset."""
SLICES = 1.0
"""A process that has written one slice of a long flush, for its turn to write the next one."""

# --- for the files
SET_UP = 5.0
"""A process that starts, for another one that makes the files, or for a program that keeps them locked."""
RUNNING = 0.05
"""A process that runs already, for the same. It tries again with its next flush."""
LEFT_TO_OTHERS = 2.0
"""A process that has no old file open, for living processes to make the files anew; each looks once a second."""
UNBELIEVED = 0.05
"""A process that opens the database, for another one that does so, too; that takes a thousandth of this time."""
SCRAPE = 0.1
"""A scrape, for this process to go over to new files."""

# --- for other threads of this process
FORK_HOOKS = 2.0
"""Code that must not run while the process forks. No longer, as the fork may wait for a lock of this very thread, which
is in a signal handler."""
FORK_POLITE = 0.03
"""A fork, for other threads, before it hurries them."""
FORK = 2.0
"""A fork, for a thread that the system keeps from ending what it does (a disk that stalls), at most."""
FLUSHER_AT_FORK = 0.1
"""A fork, for the flusher to end."""
FLUSHER_AT_EXIT = 2.0
"""An exit, for a flush that is under way; its own waits are 20 ms at most."""
NEW_CHILD = 0.05
"""A new child or a new metric, for another thread that binds. The new one is made with its metric's lock held, and a
signal handler in that other thread may wait for that lock: without a limit, neither would ever go on."""
EXEMPLAR = 0.01
"""An exemplar that goes to the journal at once, for another thread, perhaps the flusher, that has the journal. Usually
that takes some microseconds."""
METRIC = 0.05
"""The flusher, for a metric's lock; children that cannot be dropped now are dropped after a later flush."""
ASKING = 1.0
"""A scrape, for another thread that is asking functions and published collectors already."""

# --- for other processes
LAST_WORDS = 0.02
"""A settler, for a process that has lost its lock but lives: it may be in the middle of an operation, which does not
see the notice. An operation takes 0.0001 ms, but the machine may be busy."""


def tries(seconds: float) -> range:
    """Count down the tries that fit into so many seconds, each of `WRITE_LOCK`, at least one; the last is 0."""
    return range(max(round(seconds / WRITE_LOCK), 1) - 1, -1, -1)
