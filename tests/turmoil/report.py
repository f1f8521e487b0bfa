"""What is said at the end: the last comparison, what was wrong, and what had happened just before."""

from __future__ import annotations

import collections
import json
import subprocess

from . import readers
from .audit import Auditor, Values
from .ledger import BY_SEAT, COLUMNS, Ledger

_VIEW = "SELECT metric, labels, value FROM metrics WHERE metric LIKE 'turmoil%'"
_BEFORE_SECONDS = 1.5
_SHOWN = 12


def report(ledger: Ledger, path: str) -> tuple[list[str], dict[str, object]]:
    """All that was wrong, as lines, and figures."""
    if not any(line[2:4] == ["waited in vain until", "the store is whole"] for line in ledger.said()):
        values = Auditor(ledger, "last").scrape(lambda: readers.text_of_fresh_process(path))
        if values is not None:
            _compare_with_shell(ledger, path, values)
    lines = ledger.said()
    wrong = [line for line in lines if line[1] == "WRONG"]
    return _told(lines, wrong), _figures(ledger, lines, wrong)


def _compare_with_shell(ledger: Ledger, path: str, values: Values) -> None:
    """All processes have ended and the reader above has settled none: one that writes does, then rows say it all."""
    readers.settle_all(path)
    shown = subprocess.run(["sqlite3", "-readonly", "-json", path, _VIEW], capture_output=True, text=True, timeout=60)
    rows = {_key(row["metric"], json.loads(row["labels"])): row["value"] for row in json.loads(shown.stdout or "[]")}
    for (name, labels), value in values.items():
        if name.endswith(("_total", "_count", "_sum")) and rows.get((name, labels)) != value:
            ledger.say("WRONG", "shell", name, labels, value, rows.get((name, labels)))
    check = subprocess.run(["sqlite3", "-readonly", path, "PRAGMA integrity_check"], capture_output=True, text=True)
    if check.stdout != "ok\n":
        ledger.say("WRONG", "integrity", check.stdout, check.stderr)


def _key(metric: str, labels: dict[str, str]) -> tuple[str, str]:
    return metric, ",".join(f'{name}="{value}"' for name, value in labels.items())


def _told(lines: list[list[object]], wrong: list[list[object]]) -> list[str]:
    """The first of what was wrong, each with what had happened before."""
    told, last = [], 0.0
    for line in wrong[:_SHOWN]:
        at = float(str(line[0]))
        for before in lines:
            if max(last, at - _BEFORE_SECONDS) < float(str(before[0])) <= at and before[1] not in ("scraped", "WRONG"):
                told.append(f"      {before[0]:.3f} {before[1:]}")
        told.append(f"WRONG {at:.3f} {line[2:]}")
        last = at
    return told + [f"… and {len(wrong) - _SHOWN} more"] * (len(wrong) > _SHOWN)


def _figures(ledger: Ledger, lines: list[list[object]], wrong: list[list[object]]) -> dict[str, object]:
    account = ledger.snapshot()
    kinds = collections.Counter(str(line[1]) for line in lines)
    counters = [name for name in COLUMNS if name != "top"]
    return {
        "operations": sum(account.done(name) for name in counters),
        "unknown": sum(account.begun(name) - account.done(name) for name in counters),
        "unknown by seat": sum(account.begun(name) - account.done(name) for name in BY_SEAT),
        "scrapes": kinds["scraped"],
        "killed": sum(line[1] == "ends" and line[3] == "SIGKILL" for line in lines),
        "steps back": sum(line[4] == "back" for line in wrong),
        "happened": dict(kinds),
    }
