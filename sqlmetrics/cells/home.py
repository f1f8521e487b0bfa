"""The cells file of a store as a process has it open, and where the process reports trouble with it."""

from __future__ import annotations

from ..errors import StoreError
from ..process.trouble import Trouble
from .cellsfile import CellsFile


class NotOpenError(StoreError, OSError):
    """There is no store yet: it could not be opened or made."""


class Home:
    """What the parts of one store in one process have in common.

    path: of the main file. id: of the store in the files that are open, '' before there are any.
    """

    def __init__(self, path: str):
        self.path = path
        self.trouble = Trouble()
        self.id = ""
        self._file: CellsFile | None = None

    @property
    def file(self) -> CellsFile:
        """The cells file. Raises NotOpenError."""
        if self._file is None:
            raise NotOpenError(f"{self.path}: the store could not be opened yet")
        return self._file

    def is_open(self) -> bool:
        """Whether there is a store; False while it cannot be opened and this process counts in memory."""
        return self._file is not None

    def enter(self, file: CellsFile, store: str) -> None:
        """Use this file of the store of that id from now on."""
        self._file, self.id = file, store

    def report(self, cause: str, message: str, *, about: str = "") -> None:
        """Report trouble with this store, see `Trouble.report`."""
        self.trouble.report(cause, f"{self.path}: {message}", about=about)

    def over(self, cause: str, message: str, *, about: str = "") -> None:
        """Say that it is gone, see `Trouble.over`."""
        self.trouble.over(cause, f"{self.path}: {message}", about=about)
