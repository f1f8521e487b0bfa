"""`sqlmetrics serve`: runs the exporter, beside workers that serve no HTTP."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import apsw

from ..errors import SQLMetricsError
from ..exporter import access, listening
from ..exporter.api import Api
from ..exporter.app import Exporter
from ..exporter.tls import Tls
from ..exporter.watched import Watched
from ..outside import words
from ..outside.look import settings
from . import options


class MissingError(SQLMetricsError, ImportError):
    """The server library is not installed."""


class InsecureError(SQLMetricsError, ValueError):
    """Others could read the metrics, or the password."""


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Answers scrapes of a store that other processes count in: /metrics for Prometheus, / for people, /-/healthy"
        " and /-/ready for supervisors. Changes nothing, needs only the right to read, and waits if there is no store"
        " yet."
    )
    parser.epilog = "Exit status: 0 when SIGTERM or SIGINT ends it; 2 if it cannot begin."
    options.add_store(parser)
    parser.add_argument(
        "--listen", default=listening.DEFAULT, metavar="WHERE", help=f"{listening.FORMS} (default {listening.DEFAULT})"
    )
    _add_security(parser)
    parser.add_argument(
        "--no-self-metrics",
        dest="self_metrics",
        action="store_false",
        help="leave out what the store tells of itself, the families sqlmetrics_...",
    )


def _add_security(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tls-cert", metavar="FILE", help="serve HTTPS with this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its key (PEM), if the certificate's file does not have it")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--password-file", metavar="FILE", help="ask for what it has: one line, USER:PASSWORD")
    secret.add_argument("--token-file", metavar="FILE", help="ask for what it has: one line, a bearer token")
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this host without TLS, or without a password or token",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; returns the exit status."""
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(KeyboardInterrupt):
        _serve(arguments)
    return 0


def _leave(*_: object) -> NoReturn:
    """Exit with status 0, even before the server has begun."""
    sys.exit(0)


def _serve(arguments: argparse.Namespace) -> None:
    asked = access.of_files(arguments.password_file, arguments.token_file)
    tls = Tls(arguments.tls_cert, arguments.tls_key)
    if tls.key and not tls.cert:
        raise InsecureError("--tls-key without --tls-cert: name the certificate, too")
    _refuse_without_uvicorn()
    settings()  # a wrong one raises now, and not at the first scrape
    store = Watched(arguments.path)
    with listening.listening(arguments.listen) as sockets:
        if not arguments.insecure:
            _refuse_open(sockets, has_tls=bool(tls.cert), has_secret=bool(asked.scheme))
        _begin_log()
        api = Api(Watched(arguments.path))

        def begun() -> Exporter:
            _announce(store, sockets, "https" if tls.cert else "http")
            return Exporter(store, api, asked, self_metrics=arguments.self_metrics)

        _answer(begun, api, sockets, tls)


def _refuse_without_uvicorn() -> None:
    if importlib.util.find_spec("uvicorn") is None:
        raise MissingError("serve needs uvicorn: pip install 'sqlmetrics[serve]'")


def _answer(begun: Callable[[], Exporter], api: Api, sockets: list[socket.socket], tls: Tls) -> None:
    from ..exporter import server  # here: it imports uvicorn

    api.history.start()
    server.serve(begun, sockets, tls)


def _refuse_open(sockets: list[socket.socket], *, has_tls: bool, has_secret: bool) -> None:
    """Raise InsecureError if others could read the metrics, or the secret."""
    wanting = [] if has_secret else ["--password-file or --token-file"]
    wanting += [] if has_tls else ["--tls-cert and --tls-key"]
    for one in sockets:
        if wanting and not listening.is_local(one):
            raise InsecureError(
                f"{listening.url(one, 'http')} can be reached from beyond this host: give {' and '.join(wanting)},"
                " or say --insecure"
            )


def _begin_log() -> None:
    logging.basicConfig(stream=sys.stderr, format="sqlmetrics: %(message)s", level=logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of each client that sends nonsense
    logging.getLogger("sqlmetrics").setLevel(logging.INFO)


def _announce(store: Watched, sockets: list[socket.socket], scheme: str) -> None:
    urls = " ".join(listening.url(one, scheme) for one in sockets)
    logging.getLogger("sqlmetrics").info("serving %s", words.printable(f"{store.place()} at {urls}"))
    try:
        store.check()
    except (SQLMetricsError, apsw.Error, OSError) as error:
        store.tell(error)
