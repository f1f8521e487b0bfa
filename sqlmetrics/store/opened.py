"""A store as one process has it open: the files, this process's own part of them, a connection and a flusher."""

from __future__ import annotations

from .. import config
from ..cells.cellsfile import CellsFile
from ..cells.figures import Figures
from ..cells.home import Home
from ..cells.part import Part
from ..process import fork, waits
from ..process.trouble import Trouble
from ..rows import files
from ..rows.connections import Access
from ..rows.renew import Pair
from .flusher import Flusher


class Opened:
    """The parts of an open store, for all code of this process that works on it.

    path: the main file, absolute. settings: see `config.Settings`. writing: gives the connection that writes.
    """

    flusher: Flusher

    def __init__(self, path: str, settings: config.Settings):
        self.path = path
        self.settings = settings
        self.home = Home(path)
        self._part = Part(self.home)
        self._figures = Figures(self.trouble, self._part)
        self.writing = Access(path)

    @property
    def file(self) -> CellsFile:
        """The cells file. Raises NotOpenError."""
        return self.home.file

    @property
    def id(self) -> str:
        """The store's id in the open files; '' before there are any."""
        return self.home.id

    @property
    def trouble(self) -> Trouble:
        """The trouble with the store in this process."""
        return self.home.trouble

    @property
    def part(self) -> Part:
        """The part of the store that is this process's own, even after a fork from C, which runs no hook."""
        fork.notice()
        return self._part

    @property
    def part_of_attached(self) -> Part:
        """The same, for code that has just found a value bound to its cell: then no fork is unnoticed."""
        return self._part

    @property
    def figures(self) -> Figures:
        """The figures about this process's work."""
        if self._figures.part is not self._part:  # they are its parent's
            self._figures = Figures(self.trouble, self._part)
        return self._figures

    def is_open(self) -> bool:
        """Whether there is a store; False while it cannot be opened and this process counts in memory."""
        return self.home.is_open()

    def open(self, seconds: float = waits.SET_UP) -> None:
        """Open the store, or make it and its folder; wait so many seconds for others.

        Raises what `config.make_folder` and `files.open_or_create` raise.
        """
        config.make_folder(self.path, self.settings.gid())
        self.enter(files.open_or_create(self.path, self.settings, self.trouble, seconds=seconds))
        self.home.over("closed", "the store is open, the values of this process are in it")

    def enter(self, pair: Pair) -> None:
        """Use these files from now on."""
        self.home.enter(pair.cells, pair.store)
