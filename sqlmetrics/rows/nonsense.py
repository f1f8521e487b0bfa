"""Notes records of journals that were left out because they make no sense, until code that may log reports them.

Each scrape meets such a record, but it is noted only once: when the records around it become rows.
"""

from __future__ import annotations

from collections import deque

from ..cells.journal import Reading
from ..process.trouble import Trouble
from ..process.weak import taken_from

_MOST = 1000
_noted: dict[str, deque[str]] = {}
"""The messages by path of the store."""


def note(path: str, instance: int, reading: Reading) -> None:
    """Note what was left out of a journal."""
    for what in reading.left_out:
        note_one(path, instance, what)


def note_one(path: str, instance: int, what: str) -> None:
    """Note one record."""
    _noted.setdefault(path, deque(maxlen=_MOST)).append(f"process instance {instance} has written {what}")


def tell(path: str, trouble: Trouble) -> None:
    """Report what was noted of the store at `path`; takes no lock."""
    while what := taken_from(_noted.get(path, deque())):
        trouble.report("records", f"{path}: {what}; readers skip it, and show and keep everything else")
