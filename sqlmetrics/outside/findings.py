"""The result of a check: what it found, how bad that is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    about: such as `filesystem`. level: `ok`, `warning` or `error`. text: what was found. fix: what to do, if anything.
    """

    about: str
    level: str
    text: str
    fix: str = ""


def worst(findings: list[Finding]) -> str:
    """Return the worst level among findings."""
    levels = {one.level for one in findings}
    return next((level for level in (ERROR, WARNING) if level in levels), OK)
