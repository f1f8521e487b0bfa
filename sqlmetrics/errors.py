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
    """Nothing names a path, or the named path cannot hold a store."""


class NoStoreError(SQLMetricsError, ValueError):
    """There is no store at the path of a reader. Readers never create one."""


class StoreError(SQLMetricsError):
    """What is at the path cannot be used as a store."""


class ForeignFileError(StoreError):
    """The file at the path is not a SQLite database, or belongs to another program."""


class SchemaError(StoreError):
    """A newer version has written the store, and this one would damage its rows."""


class JournalModeError(StoreError):
    """SQLite refused write-ahead logging (WAL) for the file."""


class DamagedError(StoreError):
    """The store's files are damaged, or do not belong together. A process that writes to the store repairs them."""


class InstallError(SQLMetricsError, RuntimeError):
    """A second ``install()`` has another path or other settings.

    Or another Python interpreter of this process, or another copy of this package, has the store open.
    """


class StoreInUseError(SQLMetricsError):
    """``reset()`` refuses, because a living process has a part of the store."""
