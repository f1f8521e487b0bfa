"""The store that an exporter serves: it may come later, disappear, or be made anew at the same or another place."""

from __future__ import annotations

import logging
import threading

from .. import config
from ..errors import PathError
from ..outside.look import Look
from ..outside.place import Place, find
from ..outside.words import printable
from ..scrape.text import Encoder
from ..scrape.wanted import Wanted, wanted

log = logging.getLogger("sqlmetrics")


class Watched:
    """Looks at the store at a path, found again at each question. Raises PathError if no store is named at all."""

    def __init__(self, path: str | None):
        self._path = path
        self._named_by, self._named = config.named(path)
        self._lock = threading.Lock()
        self._look: Look | None = None
        self._told = ""

    def place(self) -> Place:
        """Return the place of the store, even while its folder is missing."""
        try:
            return find(self._path)
        except PathError:
            return Place(self._named, "--path" if self._named_by == "path" else self._named_by)

    def look(self) -> Look:
        """Return a look at the store. Raises PathError while its folder is missing."""
        place = find(self._path)
        with self._lock:
            if self._look is None or self._look.place != place:
                if self._look is not None:
                    self._look.close()
                self._look = Look(place)
            return self._look

    def text(self, encoder: Encoder, asked: Wanted) -> bytes:
        """Return the exposition. Raises as `Look` does."""
        text = self.look().encoded(encoder, asked)
        self.tell(None)
        return text

    def check(self) -> None:
        """Read a little, to check that the store can be read. Raises as `Look` does."""
        self.look().ask(wanted([]), lambda _: None)
        self.tell(None)

    def tell(self, error: Exception | None) -> None:
        """Log why the store cannot be read, or that it can be read again; the same reason only once."""
        said = str(error or "")
        with self._lock:
            before, self._told = self._told, said
        if said and said != before:
            log.warning("not ready: %s", printable(said))
        elif before and not said:
            log.warning("ready: %s can be read", printable(str(self.place())))
