"""`top` on a whole terminal, with `rich`: drawn again at each look, at each key, and when its size has changed."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

import apsw
from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import SQLMetricsError
from ..outside import words
from .keys import BACKSPACE, ENTER, ESCAPE, Keyboard
from .overview import Choice, Overview, Watch, families_table, processes_table, summary
from .overview import Table as Rows

_STYLES = {"alive": "green", "dead": "bold red"}
_GLANCE = 0.5
"""The most seconds until a new size of the terminal is noticed."""
_FIRST = 1.0
"""Seconds at most until there are the first rates."""


@dataclass
class State:
    """What is on the screen. trouble: why the store cannot be read, '' if it can. typing: whether a filter is typed."""

    choice: Choice
    found: Overview | None = None
    trouble: str = ""
    typing: bool = False
    held: bool = False
    left: bool = False


def live(watch: Watch, choice: Choice, interval: float) -> None:
    """Show the screen until q is pressed."""
    console, state = Console(highlight=False), State(choice)
    with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as shown:
        next_look = time.monotonic() + min(interval, _FIRST)
        _look(watch, state)
        while not state.left:
            console.size = _size()
            shown.update(drawn(state, *console.size), refresh=True)
            for key in keyboard.pressed(min(next_look - time.monotonic(), _GLANCE)):
                press(state, key)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + interval
                if not state.held:
                    _look(watch, state)


def _size() -> ConsoleDimensions:
    """Return the terminal's own size, which may change, whatever COLUMNS and LINES say."""
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    return ConsoleDimensions(columns or 80, lines or 24)


def _look(watch: Watch, state: State) -> None:
    try:
        state.found, state.trouble = watch.look(), ""
    except (SQLMetricsError, apsw.Error, OSError) as error:
        state.trouble = str(error)


def press(state: State, key: str) -> None:
    """Do what a key means."""
    if state.typing:
        _type(state, key)
    elif key in ("q", "Q", "\x04"):
        state.left = True
    elif key == "s":
        state.choice.next_sort()
    elif key == "o":
        state.choice.next_order()
    elif key == " ":
        state.held = not state.held
    elif key == "/":
        state.typing, state.choice.part = True, ""
    elif key == ESCAPE:
        state.choice.part = ""


def _type(state: State, key: str) -> None:
    if key in ENTER:
        state.typing = False
    elif key == ESCAPE:
        state.typing, state.choice.part = False, ""
    elif key in BACKSPACE:
        state.choice.part = state.choice.part[:-1]
    elif key.isprintable():
        state.choice.part += key


def drawn(state: State, width: int, height: int) -> Group:
    """Return the screen, no larger than so many columns and lines."""
    lines: list[RenderableType] = [_line(state.trouble, "bold red", width)] if state.trouble else []
    if state.found is not None:
        lines += [_line(one, "", width) for one in summary(state.found)]
        tables = [families_table(state.found, state.choice), processes_table(state.found, state.choice)]
        room = _share([len(rows) for _, rows in tables], height - len(lines) - len(tables) * 2 - 1)
        lines += map(_table, tables, room)
        height -= sum(room) + len(tables) * 2 - len(tables)
    space = [Text("")] * (height - len(lines) - 1)
    return Group(*lines, *space, _foot(state, width))


def _share(wanted: list[int], room: int) -> list[int]:
    """Return how many rows each of two tables gets: all, or half of the room and what the other one leaves."""
    room = max(room, 2)
    first = min(wanted[0], max(room // 2, room - wanted[1]))
    return [first, min(wanted[1], room - first)]


def _line(text: str, style: str, width: int) -> Text:
    text = words.printable(text)
    return Text(text if len(text) <= width else f"{text[: width - 3]}...", style=style, no_wrap=True)


def _table(table: Rows, room: int) -> Group:
    """Return a table below an empty line, with as many rows as fit; one column takes the width that is left."""
    heads, rows = table
    wide = "<PROGRAM" if "<PROGRAM" in heads else heads[0]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="reverse", expand=True)
    for head in heads:
        left = head.startswith("<")
        made.add_column(
            Text(head.removeprefix("<")),
            justify="left" if left else "right",
            no_wrap=True,
            overflow="ellipsis" if left else "crop",
            ratio=1 if head == wide else None,
        )
    for row in rows[:room]:
        made.add_row(*[Text(text, style=_STYLES.get(text, "")) for text in row])
    return Group(Text(""), made)


def _foot(state: State, width: int) -> Text:
    choice = state.choice
    if state.typing:
        return _line(f"filter: {choice.part}_   Enter: keep it, Esc: show all", "bold", width)
    said = f"q leave  s families by {choice.sort}  o processes by {choice.order}  / filter  space hold"
    said += f"  [{choice.part}]" if choice.part else ""
    return _line(said + ("  HELD" if state.held else ""), "dim", width)
