"""`sqlmetrics run`: start a command so that every Python below it uses the store, and no code changes.

The command takes the place of this process (`exec`), so signals, exit status, standard streams and inherited sockets
are its own. What makes the store active travels in the environment; see `bootstrap/sitecustomize.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import config
from .cells import layout, locks
from .cells.descriptors import open_file
from .errors import PathError, SQLMetricsError
from .store.store import Store

BOOTSTRAP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap")

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells say it


class CommandError(SQLMetricsError):
    """The command cannot be started; `status` is the exit status for that."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


def run(command: Sequence[str], path: str | None = None) -> NoReturn:
    """Begin a run of the store, and become `command`. Raises PathError, StoreError, ValueError or CommandError.

    command: a program, looked up in ``PATH``, and its arguments.
    path: the store's file or folder; default: what the environment names.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # to end without a traceback, as the command would
    program = _find(command[0])
    where = config.resolve(path)
    added = variables(where)
    if os.environ.get(config.RUN_VARIABLE) != where:
        begin(where)
    _become(program, command, os.environ | added | {config.RUN_VARIABLE: where})


def variables(path: str) -> dict[str, str]:
    """Return the variables that make a Python use the store at `path`, an absolute path. Raises PathError."""
    if os.pathsep in BOOTSTRAP:
        raise PathError(
            f"sqlmetrics is installed in {BOOTSTRAP!r}, and PYTHONPATH cannot name a folder with {os.pathsep!r} in it;"
            " install it elsewhere, or call sqlmetrics.install() in the app"
        )
    given = os.environ.get("PYTHONPATH")
    others = given.split(os.pathsep) if given else []  # an empty part of it is the current folder
    folders = os.pathsep.join([BOOTSTRAP, *(other for other in others if other != BOOTSTRAP)])
    published = os.environ.get(config.PUBLISH_VARIABLE, ",".join(config.PUBLISHED))
    return {"SQLMETRICS_PATH": path, config.PUBLISH_VARIABLE: published, "PYTHONPATH": folders}


def begin(path: str) -> None:
    """Empty the store unless a process uses it, and hold the run lock from now on, even beyond `exec`.

    Raises PathError, StoreError, or ValueError for a setting.
    """
    settings = config.settings()
    store = Store(path, settings)
    store.begin_run(uid=os.geteuid(), gid=os.getegid())
    if store.is_open():
        _hand_on_run_lock(store.path)
    store.close()


def _hand_on_run_lock(path: str) -> None:
    """Hold the run lock with an inherited open file, because a process's own locks end at `exec`, which closes files.

    If the system has no such locks, only processes that count keep a second launcher from emptying the store.
    """
    with contextlib.suppress(OSError):
        held = open_file(path + "-cells", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # never closed
        os.set_inheritable(held, locks.share_by_file(held, layout.RUN_LOCK_AT))


def _find(name: str) -> str:
    """Find the file of a command. Call it before the store is emptied, so that a typing error changes nothing."""
    if found := shutil.which(name):
        return found
    if os.path.isfile(name) and not os.path.dirname(name):
        raise CommandError(
            f"{name}: no such command in PATH; for the file of that name here write ./{name}", _NOT_FOUND
        )
    if os.path.exists(name):
        raise CommandError(f"{name} cannot be run: it is a folder, or not executable by this user", _NOT_EXECUTABLE)
    raise CommandError(f"{name}: no such command in PATH, and no such file", _NOT_FOUND)


def _become(program: str, command: Sequence[str], environment: dict[str, str]) -> NoReturn:
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
        signal.signal(ignored, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None if the caller has closed it
            stream.flush()
    try:
        os.execve(program, list(command), environment)  # noqa: S606 - without a shell, as it is meant
    except OSError as error:
        raise CommandError(f"{program} cannot be run: {error.strerror}", _NOT_EXECUTABLE) from None
