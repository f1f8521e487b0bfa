"""Prints tables (plain or with `rich`), bars, lines and JSON for the commands."""

from __future__ import annotations

import io
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import combining, east_asian_width

from ..outside import words

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.:-=+*#"
_NARROW = 80
_NARROWEST = 8
_HEAD = 9
_COLOURS = {"ok": "32", "warning": "33", "error": "1;31", "TROUBLE": "1;31"}
_GAP = "  "


def prepare() -> None:
    """Make the standard streams take any text, also if the command was started without some, or in any locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # or the next file that is opened would be in its place
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as it runs
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def let_go_of_the_unwritten() -> None:
    """Drop output that cannot be written: Python would try again at its end, complain, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str = "") -> None:
    """Print a line, with control characters escaped, as they would act on the terminal."""
    put(words.printable(text))


def put(text: str) -> None:
    """Print a text as it is: lines of code, or a line with colours."""
    print(text)  # noqa: T201


def write(text: bytes) -> None:
    """Print a text for programs, in UTF-8 whatever the locale is."""
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
    else:
        sys.stdout.write(text.decode())


def complain(text: str) -> None:
    """Print a line to the standard error, as `say` does."""
    print(f"sqlmetrics: {words.printable(text)}", file=sys.stderr)  # noqa: T201


def say_json(found: Any) -> None:
    """Print JSON; see `json_text`."""
    put(words.json_text(found, indent=2))


def bars(values: Sequence[float]) -> str:
    """Return a small bar chart with one character for each value."""
    chart = _BARS if _shows_blocks() else _PLAIN_BARS
    highest = max(values, default=0.0)
    if not highest or not math.isfinite(highest):
        return ""
    marks = [chart[min(int(value / highest * len(chart)), len(chart) - 1)] if value else " " for value in values]
    return "".join(marks).rstrip()


def say_wrapped(head: str, text: str) -> None:
    """Print a head of one word, perhaps in colour, and a text, which a terminal gets wrapped."""
    room = max(columns() - _HEAD - 1, 20)
    lines = textwrap.wrap(text, room, break_on_hyphens=False) if is_terminal() and text else [text]
    put(f"{_coloured(head.ljust(_HEAD))} {words.printable(lines[0])}".rstrip())
    for line in lines[1:]:
        say(" " * (_HEAD + 1) + line)


def _coloured(head: str) -> str:
    colour = _COLOURS.get(head.strip())
    if colour is None or not is_terminal() or not _takes_colours():
        return head
    return f"\x1b[{colour}m{head}\x1b[0m"


def _takes_colours() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def bar(share: float, width: int) -> str:
    """Return a bar for a share (0 to 1) of so many columns; at least one column unless the share is 0."""
    mark = "█" if _shows_blocks() else "#"
    return mark * (max(round(share * width), 1) if share > 0 else 0)


def _shows_blocks() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, spare: str = "") -> None:
    """Print a table; on a terminal with `rich`, if that is installed.

    A head that begins with < is that of a text column, aligned to the left. On a terminal, the widest texts are cut,
    but no numbers, so that each row is one line. A file or a pipe gets everything.
    spare: the head of a column that is left out before anything is cut.
    """
    texts = [[one.removeprefix("<") for one in head], *([words.printable(text) for text in row] for row in rows)]
    is_left = [one.startswith("<") for one in head]
    widths = [max(map(_cells, column)) for column in zip(*texts, strict=True)]
    if is_terminal():
        if spare in texts[0] and _width(widths) > columns():
            at = texts[0].index(spare)
            texts, is_left = [row[:at] + row[at + 1 :] for row in texts], is_left[:at] + is_left[at + 1 :]
            del widths[at]
        _narrow(widths, is_left, columns())
    texts = [[_cut(text, width) for text, width in zip(row, widths, strict=True)] for row in texts]
    if not (is_terminal() and _print_rich(is_left, widths, texts)):
        for row in texts:
            fitted = zip(row, widths, is_left, strict=True)
            say(_GAP.join(_filled(text, width, left) for text, width, left in fitted).rstrip())


def _width(widths: list[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrow(widths: list[int], is_left: list[bool], width: int) -> None:
    """Shorten the widest text columns until the table fits."""
    for n, is_text in enumerate(is_left):
        if is_text:
            widths[n] = min(widths[n], max(width, _NARROWEST))
    while _width(widths) > width:
        widest = max((n for n in range(len(widths)) if is_left[n]), key=lambda n: widths[n], default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def _cells(text: str) -> int:
    """Return how many terminal columns a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(one) else 1 + (east_asian_width(one) in "WF") for one in text)


def _filled(text: str, width: int, left: bool) -> str:
    space = " " * (width - _cells(text))
    return text + space if left else space + text


def _cut(text: str, width: int) -> str:
    if _cells(text) <= width:
        return text
    room = width - 3
    for at, one in enumerate(text):
        room -= _cells(one)
        if room < 0:
            return f"{text[:at]}..."
    return text


def is_terminal() -> bool:
    """Whether the standard output is a terminal."""
    return sys.stdout.isatty()


def columns() -> int:
    """Return the width of the screen."""
    return shutil.get_terminal_size((_NARROW, 24)).columns


def _print_rich(is_left: list[bool], widths: list[int], texts: list[list[str]]) -> bool:
    """Print a table with colours; False if these are not wanted (NO_COLOR, TERM=dumb), or `rich` is missing."""
    if not _takes_colours():
        return False
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    made = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="dim")
    for name, left, width in zip(texts[0], is_left, widths, strict=True):
        made.add_column(Text(name), justify="left" if left else "right", no_wrap=True, width=width)
    for row in texts[1:]:
        made.add_row(*[Text(text, style=_STYLES.get(text, "")) for text in row])
    Console(highlight=False, width=max(sum(widths) + len(_GAP) * len(widths), columns())).print(made)
    return True


_STYLES = {"alive": "green", "dead": "red", "error": "bold red", "warning": "yellow", "ok": "green"}
