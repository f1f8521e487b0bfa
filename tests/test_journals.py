"""A journal that is read while processes write: what was given back in the midst of it is no damage."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import sqlmetrics
from sqlmetrics.cells import journal, layout
from sqlmetrics.cells.cellsfile import CellsFile

pytestmark = pytest.mark.promise(2)

_TEXT = '"' + "x" * 1000 + '"'


def _write(writer: journal.JournalWriter, extents: int) -> None:
    """Append as much as takes so many extents more."""
    until = len(writer._extents) + extents
    while len(writer._extents) < until:
        writer.append(_TEXT)


def _when_the_reader_is_at(extent: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something done when an extent's header is read, or (after that) before the copy is checked."""
    address = journal._address

    def address_and_act(number: int) -> int:
        if number == extent:
            monkeypatch.setattr(journal, "_address", address)
            act()
        return address(number)

    monkeypatch.setattr(journal, "_address", address_and_act)


def _use_again_from_the_first(file: CellsFile) -> None:
    file.extents._cursor[0] = 0  # else what was given back rests for as long as it can


def test_an_extent_that_another_process_has_taken_is_not_taken_for_damage(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number there is a smaller one than where the reader came from."""
    file = store.file
    slot = file.claim_slot()
    writer = journal.JournalWriter(file, slot)
    _write(writer, 4)
    start = writer._end
    writer.release(start)  # so that it does not begin at number 0
    _write(writer, 3)
    second = writer._extents[1]

    def give_back() -> None:
        writer.release(writer._end)
        _use_again_from_the_first(file)
        other = journal.JournalWriter(file, file.claim_slot())
        while second not in other._extents:
            other.append(_TEXT)

    _when_the_reader_is_at(second, give_back, monkeypatch)
    with pytest.raises(journal.JournalGoneError):
        journal.read(file, slot, layout.instance_of(file.uses[slot], slot), start)


def test_an_extent_that_the_same_process_uses_again_is_not_read_for_what_it_was(
    store: sqlmetrics.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at its header and the copy."""
    file = store.file
    slot = file.claim_slot()
    writer = journal.JournalWriter(file, slot)
    _write(writer, 2)
    first = writer._extents[0]
    header, calls = layout.EXTENT_HEADER, []

    class Header:
        """Acts after the first header was read."""

        size = header.size
        pack_into = header.pack_into

        def unpack_from(self, *arguments: object) -> tuple[int, ...]:
            found = header.unpack_from(*arguments)  # type: ignore[arg-type]
            if not calls:
                calls.append(found)
                writer.release(writer._end)
                _use_again_from_the_first(file)
                while first not in writer._extents:
                    writer.append(_TEXT)
            return found

    monkeypatch.setattr(layout, "EXTENT_HEADER", Header())
    with pytest.raises(journal.JournalGoneError):
        journal.read(file, slot, layout.instance_of(file.uses[slot], slot), 0)
