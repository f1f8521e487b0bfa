"""The sockets that the exporter listens on: it makes them, or inherits them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterator

from ..errors import SQLMetricsError

DEFAULT = "127.0.0.1:9464"
FORMS = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd:N or systemd"
_FIRST_FD = 3
"""The first descriptor of systemd's sockets, see sd_listen_fds(3)."""
_BACKLOG = 128


class ListenError(SQLMetricsError, OSError):
    """The exporter cannot listen there."""


@contextlib.contextmanager
def listening(text: str) -> Iterator[list[socket.socket]]:
    """Yield the sockets of ``--listen``. At the end close them and remove a unix socket's file. Raises ListenError."""
    sockets = listen(text)
    kind, _, path = text.partition(":")
    made = _identity(path) if kind == "unix" else None
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()
        if made is not None:
            _remove(path, made)


def listen(text: str) -> list[socket.socket]:
    """Return the sockets for ``--listen``, in one of the `FORMS`. Raises ListenError."""
    kind, _, rest = text.partition(":")
    try:
        if text == "systemd":
            return _activated()
        if kind == "unix":
            return [_unix(rest)]
        return [_inherited(int(rest))] if kind == "fd" and rest.isdigit() else [_tcp(text)]
    except OSError as error:
        if isinstance(error, ListenError):
            raise
        is_used = error.errno == errno.EADDRINUSE
        said = "it is in use; name another with --listen" if is_used else error.strerror or str(error)
        raise ListenError(f"cannot listen on {text}: {said}") from error


def is_local(sock: socket.socket) -> bool:
    """Whether only programs of this host can reach it."""
    if sock.family == socket.AF_UNIX:
        return True
    address = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def url(sock: socket.socket, scheme: str) -> str:
    """Return the URL of a socket."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(sock.getsockname())}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove(path: str, made: tuple[int, int]) -> None:
    """Remove the file of a unix socket that was made here, but not that of another exporter that started meanwhile."""
    if _identity(path) == made and _is_left(path):
        with contextlib.suppress(OSError):
            os.unlink(path)


def _tcp(text: str) -> socket.socket:
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})", text)
    if found is None or int(found["port"]) > 65535:
        raise ListenError(f"cannot listen on {text!r}: expected {FORMS}")
    host, port = found["six"] or found["host"], int(found["port"])
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    known = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104 - as is said
    family, _, _, _, address = min(known, key=lambda one: one[0] != socket.AF_INET)
    return socket.create_server(address, family=family, backlog=_BACKLOG)


def _unix(path: str) -> socket.socket:
    """Return a socket in a folder; the umask decides which users may connect to it."""
    if not path:
        raise ListenError("cannot listen on 'unix:': expected unix:PATH")
    if _is_left(path):
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _is_left(path: str) -> bool:
    """Whether the path has the socket of a process that has ended."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _inherited(fd: int) -> socket.socket:
    """Return an inherited socket."""
    try:
        found = socket.socket(fileno=fd)
    except OSError as error:
        raise ListenError(f"cannot listen on fd:{fd}: that is no socket ({error.strerror})") from None
    if found.type != socket.SOCK_STREAM or found.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise ListenError(f"cannot listen on fd:{fd}: expected a stream socket of TCP or unix")
    found.set_inheritable(False)
    return found


def _activated() -> list[socket.socket]:
    """Return the sockets of systemd's socket units."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit() or int(count) < 1:
        raise ListenError("cannot listen on systemd: it has handed on no socket; the service needs a .socket unit")
    return [_inherited(fd) for fd in range(_FIRST_FD, _FIRST_FD + int(count))]
