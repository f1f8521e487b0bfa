"""The open cells file of a store in one process, and the trouble that the process has with the store."""

from __future__ import annotations

from ..errors import StoreError
from ..process.trouble import Trouble
from .cellsfile import CellsFile


class NotOpenError(StoreError, OSError):
    """There is no store yet: it could not be opened or made."""


class Home:
    """The open files of one store in one process.

    path: of the main file. id: the store's, as in the files that are open; '' before there are any.
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
        """Report that the trouble is gone, see `Trouble.over`."""
        self.trouble.over(cause, f"{self.path}: {message}", about=about)
