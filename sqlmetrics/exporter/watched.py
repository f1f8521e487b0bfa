"""The store that an exporter serves: it may come later, go, and be made anew at the same place or at another."""

from __future__ import annotations

import logging
import threading

from .. import config
from ..errors import PathError
from ..outside.look import Look
from ..outside.place import Place, find
from ..scrape.text import Encoder
from ..scrape.wanted import Wanted, wanted

log = logging.getLogger("sqlmetrics")


class Watched:
    """Looks at what is at a path each time that something is asked. Raises PathError if no store is named at all."""

    def __init__(self, path: str | None):
        self._path = path
        self._named_by, self._named = config.named(path)
        self._lock = threading.Lock()
        self._look: Look | None = None
        self._told = ""

    def place(self) -> Place:
        """The store, as far as its place can be told while its folder is not there."""
        try:
            return find(self._path)
        except PathError:
            return Place(self._named, "--path" if self._named_by == "path" else self._named_by)

    def look(self) -> Look:
        """Look at the store. Raises PathError while its folder is not there."""
        place = find(self._path)
        with self._lock:
            if self._look is None or self._look.place != place:
                if self._look is not None:
                    self._look.close()
                self._look = Look(place)
            return self._look

    def text(self, encoder: Encoder, asked: Wanted) -> bytes:
        """The exposition. Raises as `Look` does."""
        text = self.look().encoded(encoder, asked)
        self.tell(None)
        return text

    def check(self) -> None:
        """Read as little as shows that all can be read. Raises as `Look` does."""
        self.look().ask(wanted([]), lambda _: None)
        self.tell(None)

    def tell(self, error: Exception | None) -> None:
        """Log why the store cannot be read, or that it can again; the same thing once."""
        said = str(error or "")
        with self._lock:
            before, self._told = self._told, said
        if said and said != before:
            log.warning("not ready: %s", said)
        elif before and not said:
            log.warning("ready: %s can be read", self.place())
