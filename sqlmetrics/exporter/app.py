"""The ASGI app of the exporter: its routes, and the check of passwords."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import apsw

from ..errors import SQLMetricsError
from ..outside import words
from ..web import METHODS, Answer, Request, Scraper, header, request_of, send_answer
from .access import Access
from .api import QUESTIONS, Api
from .page import Page
from .sharing import Shared
from .watched import Watched

Handler = Callable[[Request], Awaitable[Answer]]
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_JSON = ("Content-Type", "application/json")
_FOR_ALL = ("/-/healthy", "/-/ready")
"""Routes without a password, because supervisors have none."""
_SAFE = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_API = "/api/"


class Exporter:
    """Answers scrapes of one store, and the page's questions. Make it in the event loop that runs it."""

    def __init__(self, store: Watched, api: Api, access: Access, *, self_metrics: bool = True):
        self._store, self._api, self._access = store, api, access
        self._page = Page()
        self._scrapes = Shared(Scraper(store.text, store.tell, self_metrics=self_metrics).answer)
        self._checks = Shared(self._check)
        self._routes: dict[str, Handler] = {
            "/": self._show,
            "/metrics": self._scrapes.answer,
            "/-/healthy": self._live,
            "/-/ready": self._checks.answer,
            **{f"{_API}{name}": Shared(self._ask).answer for name in QUESTIONS},
        }

    async def __call__(self, scope: dict[str, Any], _: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Answer one request."""
        request = request_of(scope)
        if request.method == "HEAD":  # the server sends no body then
            request = request._replace(method="GET")
        answer = await self._answer(request, header(scope["headers"], b"authorization"))
        await send_answer(send, answer._replace(headers=[*answer.headers, *_SAFE]))

    async def _answer(self, request: Request, authorization: str) -> Answer:
        if request.path not in _FOR_ALL and not self._access.allows(authorization):
            return _said(
                "401 Unauthorized", "a password or a token is required", ("WWW-Authenticate", self._access.challenge())
            )
        handler = self._routes.get(request.path)
        if handler is None:
            return _said("404 Not Found", f"there are {', '.join(self._routes)}")
        if request.method not in ("GET", "OPTIONS"):
            return _said("405 Method Not Allowed", "use OPTIONS or GET", METHODS)
        return await handler(request) if request.method == "GET" else Answer("200 OK", [METHODS], b"")

    async def _show(self, _: Request) -> Answer:
        return Answer("200 OK", self._page.headers, self._page.body)

    async def _live(self, _: Request) -> Answer:
        return _said("200 OK", "healthy")

    def _check(self, _: Request) -> Answer:
        try:
            self._store.check()
        except (SQLMetricsError, apsw.Error, OSError) as error:
            self._store.tell(error)
            return _said("503 Service Unavailable", f"not ready: {error}")
        return _said("200 OK", "ready")

    def _ask(self, request: Request) -> Answer:
        """Answer a question of the page."""
        try:
            found = self._api.ask(request.path.removeprefix(_API), dict(parse_qsl(request.query)))
        except (SQLMetricsError, apsw.Error, OSError) as error:
            status = getattr(error, "http_status", "503 Service Unavailable")
            return Answer(status, [_JSON, _NEW], words.json_text({"error": str(error)}).encode())
        return Answer("200 OK", [_JSON, _NEW], words.json_text(found).encode())


_NEW = ("Cache-Control", "no-store")


def _said(status: str, text: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, [_TEXT, _NEW, *headers], f"{text}\n".encode("utf-8", "backslashreplace"))
