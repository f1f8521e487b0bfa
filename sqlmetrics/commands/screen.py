"""What commands print: tables, plain or by `rich`, numbers, and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.:-=+*#"
_NARROW = 80
_GAP = "  "


def say(text: str = "") -> None:
    """Print a line; what the terminal cannot show is replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201


def complain(text: str) -> None:
    """Print a line to the standard error."""
    print(f"sqlmetrics: {text}", file=sys.stderr)  # noqa: T201


def say_json(found: Any) -> None:
    """Print JSON. NaN and infinities, for which it has no numbers, are the strings that Prometheus writes."""
    say(json.dumps(_plain(found), indent=2, ensure_ascii=True))


def _plain(found: Any) -> Any:
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return {one.name: _plain(getattr(found, one.name)) for one in dataclasses.fields(found)}
    if isinstance(found, dict):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_plain(one) for one in found]
    return number(found) if isinstance(found, float) and not math.isfinite(found) else found


def number(value: float | None) -> str:
    """A number with all its digits, as the exposition has it, but whole ones without a point; '-' for None."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def short(value: float | None) -> str:
    """A number with four digits; '-' where it is not known."""
    if value is None or math.isnan(value):
        return "-"
    return (
        number(value)
        if math.isinf(value) or abs(value) >= 1e15
        else f"{value:.4g}"
        if abs(value) < 1e4
        else f"{value:.0f}"
    )


def size(count: float | None) -> str:
    """A number of bytes, for people."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def seconds(value: float | None) -> str:
    """A span of time, for people."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h" if value < 172_800 else f"{value / 86_400:.0f} d"


def moment(at: float | None) -> str:
    """A time (seconds since the epoch), in UTC; '-' for None."""
    return "-" if at is None else datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def label_text(labels: dict[str, str]) -> str:
    """Labels as the exposition writes them; control characters are escaped, as they would act on the terminal."""
    pairs = ",".join(f"{name}={json.dumps(printable(value), ensure_ascii=False)}" for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def printable(text: str) -> str:
    """A text without control characters and lone surrogates: label values come from anywhere."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def bars(values: Sequence[float]) -> str:
    """A small bar chart, one character for each value."""
    chart = _BARS if _shows_blocks() else _PLAIN_BARS
    highest = max(values, default=0.0)
    if not highest or not math.isfinite(highest):
        return ""
    return "".join(chart[min(int(value / highest * len(chart)), len(chart) - 1)] if value else " " for value in values)


def bar(share: float, width: int) -> str:
    """A bar of a share (0 to 1) of so many columns; what is not nothing has a length of one at least."""
    mark = "█" if _shows_blocks() else "#"
    return mark * (max(round(share * width), 1) if share > 0 else 0)


def _shows_blocks() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table; by `rich` on a terminal if that is installed. Heads that begin with < are of texts, to the left.

    On a terminal the widest column of texts is cut so that a row is a line; a file or a pipe gets all of it.
    """
    texts = [list(row) for row in rows]
    if is_terminal() and _print_rich(head, texts, title):
        return
    if title:
        say(title)
    for line in plain_table(head, texts, columns() if is_terminal() else None):
        say(line)


def plain_table(head: Sequence[str], rows: list[list[str]], width: int | None) -> list[str]:
    """The lines of a table without colours. width: of the screen, in columns; None: any."""
    cells = [[one.removeprefix("<") for one in head], *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = [one.startswith("<") for one in head]
    if width is not None:
        _narrow(widths, left, width)
    lines = []
    for row in cells:
        fitted = [_fitted(text, *how) for text, how in zip(row, zip(widths, left, strict=True), strict=True)]
        lines.append(_GAP.join(fitted).rstrip())
    return lines


def _narrow(widths: list[int], left: list[bool], width: int) -> None:
    """Take from the widest columns of texts what does not fit."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widest = max((n for n in range(len(widths)) if left[n]), key=lambda n: widths[n], default=None)
        if widest is None or widths[widest] <= 8:
            return
        widths[widest] -= 1


def _fitted(text: str, width: int, left: bool) -> str:
    if len(text) > width:
        text = f"{text[: width - 3]}..."
    return text.ljust(width) if left else text.rjust(width)


def is_terminal() -> bool:
    """Whether the standard output is a terminal."""
    return sys.stdout.isatty()


def columns() -> int:
    """How wide the screen is."""
    return shutil.get_terminal_size((_NARROW, 24)).columns


def _print_rich(head: Sequence[str], rows: list[list[str]], title: str) -> bool:
    """Print a table with colours; False if they are not wanted (NO_COLOR, TERM=dumb), or `rich` is not there."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
    made.title_style = "bold"
    for name, column in zip(head, zip(*[head, *rows], strict=True), strict=True):
        is_text = name.startswith("<")
        made.add_column(
            name.removeprefix("<"),
            justify="left" if is_text else "right",
            no_wrap=True,
            overflow="ellipsis" if is_text else "fold",
            header_style="dim",
            min_width=None if is_text else max(map(len, column)),  # a number is never cut
        )
    for row in rows:
        made.add_row(*[Text(text, style=_STYLES.get(text, "")) for text in row])
    Console(highlight=False).print(made)
    return True


_STYLES = {"alive": "green", "dead": "red", "error": "bold red", "warning": "yellow", "ok": "green"}
