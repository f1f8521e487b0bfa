"""Writes numbers, times, labels and whole answers, for people and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from datetime import datetime, timezone
from typing import Any


def json_text(found: Any, indent: int | None = None) -> str:
    """Return JSON. NaN and infinities, which JSON does not have, become the strings that Prometheus writes."""
    return json.dumps(_plain(found), indent=indent, ensure_ascii=True)


def _plain(found: Any) -> Any:
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return {one.name: _plain(getattr(found, one.name)) for one in dataclasses.fields(found)}
    if isinstance(found, dict):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_plain(one) for one in found]
    return number(found) if isinstance(found, float) and not math.isfinite(found) else found


def number(value: float | None) -> str:
    """Return a number with all its digits, as in the exposition, but whole ones without a point; '-' for None."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def short(value: float | None) -> str:
    """Return a number with three digits, or all digits before the point of a large one; '-' if it is unknown."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value) or abs(value) >= 1e15:
        return number(value)
    return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"


def size(count: float | None) -> str:
    """Return a number of bytes for people, such as `1.5 MiB`."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def seconds(value: float | None) -> str:
    """Return a span of time for people, such as `3 min`."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h" if value < 172_800 else f"{value / 86_400:.0f} d"


def moment(at: float | None) -> str:
    """Return a time (seconds since the epoch) in UTC; '-' for None."""
    return "-" if at is None else datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def label_sets(count: int) -> str:
    """So many label sets, with the noun in its number."""
    return f"{count:,} label set" if count == 1 else f"{count:,} label sets"


def label_text(labels: dict[str, str]) -> str:
    """Return labels as in the exposition, but with control characters escaped, which would act on the terminal."""
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in labels.items()}
    pairs = ",".join(f'{printable(name)}="{printable(value)}"' for name, value in escaped.items())
    return f"{{{pairs}}}" if pairs else ""


def shell_word(text: str) -> str:
    """Quote a text for a shell; control characters are escaped as bash, zsh and ksh write them."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_in_shell, text)) + "'"


def _in_shell(one: str) -> str:
    if one in "\\'":
        return f"\\{one}"
    return one if one.isprintable() else "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogatepass"))


def printable(text: str) -> str:
    """Escape control characters and lone surrogates in a text, because label values come from anywhere."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
