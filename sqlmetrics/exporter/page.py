"""The page for people: one file that loads nothing from elsewhere, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources


class Page:
    """The page, and the headers that it is sent with."""

    def __init__(self) -> None:
        text = resources.files(__package__).joinpath("page.html").read_text("utf-8")
        self.body = text.encode()
        self.headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", _policy(text)),
            ("Cache-Control", "no-cache"),
        ]


def _policy(page: str) -> str:
    """Return the policy: a browser may run only the page's own script and style, by their hashes, and ask this host."""
    allowed = {
        "default-src": "'none'",
        "script-src": _hash_of("script", page),
        "style-src": _hash_of("style", page),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{what} {source}" for what, source in allowed.items())


def _hash_of(tag: str, page: str) -> str:
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
