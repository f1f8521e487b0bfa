"""How long anything waits for somebody else, in seconds, in one place. Other times stand where they are used."""

from __future__ import annotations

# --- for SQLite's write lock, which one process has at a time
WRITE_LOCK = 0.02
"""One try. A statement that waited for longer would keep a fork waiting; who can wait for longer tries again."""
CALL = 1.0
"""A call of the app's that has to write: `flush()`, `mark_process_dead()`, a removal, a reset."""
SLICES = 1.0
"""Who has written a slice of a long flush, for the turn to write the next one."""

# --- for the files
SET_UP = 5.0
"""A process that starts, for another one that makes the files, or a program that keeps them for itself."""
RUNNING = 0.05
"""One that runs already, for the same: it tries again with its next flush."""
LEFT_TO_OTHERS = 2.0
"""Who has nothing of the old files open, for living processes to make them anew; each looks about once a second."""
UNBELIEVED = 0.05
"""For another process that opens the database at the same moment; that takes a thousandth of it."""
SCRAPE = 0.1
"""A scrape, until this process is on the files that it reads."""

# --- for other threads of this process
FORK_HOOKS = 2.0
"""Who may not run while the process forks. The fork may be waiting for a lock of this very thread, in a handler."""
FORK_POLITE = 0.03
"""A fork, before it hurries the threads that it waits for."""
FORK = 2.0
"""A fork, at most: for a thread that the system keeps from ending what it does (a disk that stalls)."""
FLUSHER_AT_FORK = 0.1
"""A fork, for the flusher to end."""
FLUSHER_AT_EXIT = 2.0
"""An exit, for a flush that is under way; its own waits are 20 ms at most."""
NEW_CHILD = 0.05
"""A new child or a new metric, for another thread that binds. It is made with its metric's lock held, which a signal
handler in that other thread may be waiting for: neither would ever go on."""
EXEMPLAR = 0.01
"""An exemplar that is to be told at once, for another thread, the flusher say, to let go of the journal; usually it is
some microseconds."""
METRIC = 0.05
"""The flusher, for a metric's lock; children that cannot be dropped now are dropped after a later flush."""
ASKING = 1.0
"""A scrape, for another thread that is asking functions and published collectors already."""

# --- for other processes
LAST_WORDS = 0.02
"""For a process that has lost its lock, and lives, to end the operation that it is in the midst of: ones that begin
later see the notice. An operation takes 0.0001 ms, but the machine may be busy with others meanwhile."""


def tries(seconds: float) -> range:
    """The tries, one at least, that there are in so many seconds, one after each `WRITE_LOCK`; the last one is 0."""
    return range(max(round(seconds / WRITE_LOCK), 1) - 1, -1, -1)
