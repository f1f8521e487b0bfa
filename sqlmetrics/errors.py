"""The errors that sqlmetrics raises, all at set-up or on reading; none ever comes out of ``inc()``.

::

    SQLMetricsError
    ├── PathError            (also a ValueError)     no usable path was named
    ├── NoStoreError         (also a ValueError)     a reader was sent where no store is
    ├── StoreError           what is at the path cannot be used as a store
    │   ├── ForeignFileError     it is not ours: no SQLite file, or another program's
    │   ├── SchemaError          it was made by a newer sqlmetrics
    │   ├── JournalModeError     SQLite cannot use write-ahead logging there
    │   └── DamagedError         it is ours, but its files are damaged or do not belong together
    ├── InstallError         (also a RuntimeError)   install() again with another path, or a second interpreter
    └── StoreInUseError      reset() while a living process holds a part of the store
"""

from __future__ import annotations


class SQLMetricsError(Exception):
    """Base of every error of this package."""


class PathError(SQLMetricsError, ValueError):
    """No path was given anywhere, or the one that was cannot hold a store."""


class NoStoreError(SQLMetricsError, ValueError):
    """A reader was given a path where no store is. Readers never create one."""


class StoreError(SQLMetricsError):
    """What is at the path cannot be used as a store."""


class ForeignFileError(StoreError):
    """The file at the path is not a SQLite database, or belongs to another program."""


class SchemaError(StoreError):
    """The store was written by a newer version whose rows this one would damage."""


class JournalModeError(StoreError):
    """SQLite refused write-ahead logging (WAL) for the file."""


class DamagedError(StoreError):
    """The store's files are damaged, or do not belong together; a process that writes to it mends that."""


class InstallError(SQLMetricsError, RuntimeError):
    """``install()`` was called again with another path or other settings.

    Or another Python interpreter of this process, or another copy of this package, has the store open.
    """


class StoreInUseError(SQLMetricsError):
    """``reset()`` was refused because a living process holds a part of the store."""
