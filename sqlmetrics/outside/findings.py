"""What a check finds: what is so, how bad that is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    about: such as `filesystem`. level: `ok`, `warning` or `error`. text: what is so. fix: what to do, '' if nothing.
    """

    about: str
    level: str
    text: str
    fix: str = ""


def worst(findings: list[Finding]) -> str:
    """The worst level among them."""
    levels = {one.level for one in findings}
    return next((level for level in (ERROR, WARNING) if level in levels), OK)
