"""Runs the exporter with uvicorn, which only speaks HTTP: signals, sockets and timeouts are handled here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import signal
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

from .listening import ListenError
from .tls import Tls

log = logging.getLogger("sqlmetrics")

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors by which the kernel says that it has no room for a further connection."""
_PATIENCE = 10.0
"""Seconds for the head of a request, for reading any part of an answer, and for the rest of it at the end."""
_KEEP_ALIVE = 75
"""Seconds between two requests on a connection: more than the interval at which Prometheus usually scrapes."""
_CONNECTIONS = 256
"""Connections at which requests are answered 503."""
_MOST_CONNECTIONS = 2 * _CONNECTIONS
"""Connections at which a further one is closed at once: far less than the usual limit of open files, 1024."""
_BACKLOG = 128
_TOLD_SECONDS = 10.0
_LAST_SECONDS = 3


def serve(make_app: Callable[[], Any], sockets: list[socket.socket], tls: Tls) -> None:
    """Answer requests until SIGTERM or SIGINT. Raises ListenError for a certificate that cannot be used.

    make_app: called when all is ready to serve, but for the app.
    """
    config = uvicorn.Config(
        lambda: _quiet(make_app()),
        factory=True,
        http=_Hasty,  # h11 limits the head of a request to 64 KiB; httptools, which "auto" may choose, does not
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        backlog=_BACKLOG,  # as often asyncio tries, and complains, each second in which a file cannot be opened
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_LAST_SECONDS,
        ssl_certfile=tls.cert,
        ssl_keyfile=tls.key,
    )
    server = _Server(config)
    asyncio.run(_serve(server, sockets, tls))


async def _serve(server: _Server, sockets: list[socket.socket], tls: Tls) -> None:
    try:
        server.config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ListenError(f"{tls} cannot be used: {error.strerror or error}") from error
    asyncio.get_running_loop().set_exception_handler(_Complaints())
    await server.serve(sockets)


class _Complaints:
    """Logs errors of the event loop; that no connection can be accepted, in one line each ten seconds."""

    def __init__(self) -> None:
        self._told = -_TOLD_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _EXHAUSTED:
            loop.default_exception_handler(context)
        elif loop.time() - self._told >= _TOLD_SECONDS:
            self._told = loop.time()
            log.warning("no connection can be accepted now (%s); raise the limit of open files", error.strerror)


def _quiet(app: Callable[..., Any]) -> Callable[..., Any]:
    """Return the app without the tracebacks that uvicorn prints for answers that the end of the server cancels."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return answer


class _Server(uvicorn.Server):
    """A server that ends with status 0 at a signal; uvicorn's own raises the signal again at its end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the server. After `_LAST_SECONDS`, end connections whose clients have not read their answers."""
        asyncio.get_running_loop().call_later(_LAST_SECONDS, self._hang_up)
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        for one in list(self.server_state.connections):
            one.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Hasty(H11Protocol):
    """A connection that ends if its client takes too long to send a request, or to read an answer.

    uvicorn would wait for ever, but it has a limited number of connections.
    """

    _deadline: asyncio.TimerHandle | None = None
    _progress: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
        else:
            self._set_deadline()

    def data_received(self, data: bytes) -> None:
        self._set_deadline()
        super().data_received(data)
        if not self._is_waiting():
            self._drop_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        self._drop_progress()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drop_progress()

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request; if an answer was begun already, end the connection."""
        try:
            super().send_400_response(msg)
        except LocalProtocolError:
            self.transport.abort()
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the app sends from now on is dropped

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(_PATIENCE, self.transport.abort)

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _set_deadline(self) -> None:
        if self._deadline is None and self._is_waiting():
            self._deadline = self.loop.call_later(_PATIENCE, self.transport.abort)

    def _expect_progress(self) -> None:
        self._progress = self.loop.call_later(_PATIENCE, self._check_progress, self._untaken())

    def _check_progress(self, before: int) -> None:
        if self._untaken() < before:
            self._expect_progress()
        else:
            self.transport.abort()

    def _untaken(self) -> int:
        """Return how many bytes the client has not taken yet, those included that the kernel keeps for it."""
        queued = bytes(4)
        with contextlib.suppress(OSError):
            queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _drop_progress(self) -> None:
        if self._progress is not None:
            self._progress.cancel()
            self._progress = None

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
