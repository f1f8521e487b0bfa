"""Settings: where the store is, and how it is written. Arguments come first, then the environment, then defaults."""

from __future__ import annotations

import contextlib
import grp
import importlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ForeignFileError, PathError, StoreError
from .process import identifiers

STORE_NAME = "metrics.sqlite3"
PATH_VARIABLES = ("SQLMETRICS_PATH", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
RUN_VARIABLE = "SQLMETRICS_RUN"
"""The variable with the store of the run that a process belongs to: a launcher inside a run does not empty it again."""

PUBLISH_VARIABLE = "SQLMETRICS_PUBLISH"
PUBLISHED = ("process", "gc", "platform")
"""`prometheus_client`'s own collectors that every process can publish."""

Identifier = Callable[[], object]
_LONGEST_INTERVAL = 86_400.0
_MOST_ROWS = 2**63 - 1
"""The greatest number that SQLite takes."""
_SHARED_FOLDER = 0o2770
"""The mode of a folder that is shared with a group, which new files there get."""
_GREATEST_GID = 2**32 - 2
"""The greatest number of a group; the next one is -1 for the system."""


@dataclass(frozen=True)
class Settings:
    """How a store is written; every field can be given to `install` and by ``SQLMETRICS_<NAME>``.

    flush_interval: seconds between two flushes of changed values to rows, > 0.
    process_identifier: called to name this process; its result is compared as a string.
    mode: permission bits of the store's files, such as 0o600.
    group: the group (name or number) that owns the files, or None to leave it.
    keep_dead: how many dead processes' ``all`` gauges are remembered, >= 0.
    max_series: how many label sets a family may have, >= 1, or None for any number; see `client.limit`.
    persist: whether a launcher (gunicorn's master) keeps the sums of earlier runs; by the environment only.
    """

    flush_interval: float = 1.0
    process_identifier: Identifier = os.getpid
    mode: int = 0o600
    group: str | int | None = None
    keep_dead: int = 1000
    max_series: int | None = None
    persist: bool = False

    def gid(self) -> int:
        """The number of `group`, or -1 (leave it). Raises ValueError if there is no such group."""
        if self.group is None:
            return -1
        if str(self.group).isdecimal() and int(self.group) <= _GREATEST_GID:
            return int(self.group)
        try:
            return grp.getgrnam(str(self.group)).gr_gid
        except KeyError:
            raise ValueError(f"group {self.group!r} is unknown here; give a name of /etc/group or a number") from None


def _identifier(name: str) -> Identifier:
    if name in identifiers.READY_MADE:
        return identifiers.READY_MADE[name]
    module, _, attribute = name.partition(":")
    found: Identifier = getattr(importlib.import_module(module), attribute)
    if not callable(found):
        ready_made = ", ".join(identifiers.READY_MADE)
        raise ValueError(f"it is not callable; expected a function, module:function, or one of {ready_made}")
    return found


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a whole number, 1 or more") from None


def _truth(text: str) -> bool:
    known = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}
    if text.lower() not in known:
        raise ValueError(f"expected one of {', '.join(known)}")
    return known[text.lower()]


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "flush_interval": float,
    "process_identifier": _identifier,
    "mode": lambda text: int(text, 8),
    "group": str,
    "keep_dead": int,
    "max_series": _whole,
    "persist": _truth,
}


def settings(**given: object) -> Settings:
    """Combine keyword arguments (None: not given), ``SQLMETRICS_…`` variables and defaults.

    Raises ValueError that names the setting, what was found and what was wanted.
    """
    found = {name: value for name, value in given.items() if value is not None}
    for name, convert in _FROM_TEXT.items():
        variable = f"SQLMETRICS_{name.upper()}"
        text = os.environ.get(variable, "")
        if name not in found and text:
            try:
                found[name] = convert(text)
            except (ValueError, ImportError, AttributeError, TypeError) as error:  # TypeError: of a module like `.name`
                raise ValueError(f"{variable}={text!r} cannot be used: {error}") from error
    return checked(Settings(**found))  # type: ignore[arg-type]


def modes() -> dict[str, str]:
    """Return by gauge's name the mode to show it in, from ``SQLMETRICS_MODES=busy=livesum,size=max``.

    Raises ValueError if the variable has another form.
    """
    text = os.environ.get("SQLMETRICS_MODES", "")
    found = dict(part.strip().partition("=")[::2] for part in text.split(",") if part.strip())
    if not all(name and mode for name, mode in found.items()):
        raise ValueError(f"SQLMETRICS_MODES={text!r} cannot be used: expected name=mode,name=mode")
    return found


def published() -> tuple[str, ...]:
    """Return which of `PUBLISHED` every process publishes, from ``SQLMETRICS_PUBLISH=process,gc,platform``.

    The default is none. Raises ValueError that names an unknown one.
    """
    text = os.environ.get(PUBLISH_VARIABLE, "")
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if unknown := set(found).difference(PUBLISHED):
        raise ValueError(
            f"{PUBLISH_VARIABLE}={text!r} cannot be used: {sorted(unknown)[0]!r} is none of {', '.join(PUBLISHED)}"
        )
    return found


def self_metrics() -> bool:
    """Whether scrapes show the families about the store by default, from ``SQLMETRICS_SELF_METRICS``.

    Raises ValueError.
    """
    return _is_on("SQLMETRICS_SELF_METRICS")


def gunicorn_requests() -> bool:
    """Whether gunicorn's hooks count requests, from ``SQLMETRICS_GUNICORN_REQUESTS``. Raises ValueError."""
    return _is_on("SQLMETRICS_GUNICORN_REQUESTS")


def _is_on(variable: str) -> bool:
    text = os.environ.get(variable, "")
    try:
        return bool(text) and _truth(text)
    except ValueError as error:
        raise ValueError(f"{variable}={text!r} cannot be used: {error}") from None


def registries() -> str:
    """Return which registries yield what all processes have counted, from ``SQLMETRICS_REGISTRIES``.

    ``auto`` (the default): it depends on where they are made, see `client.private.Rule`. ``default``: the default
    registry and those with a collector. ``all``. Raises ValueError for another word.
    """
    text = os.environ.get("SQLMETRICS_REGISTRIES", "") or "auto"
    if text not in ("auto", "default", "all"):
        raise ValueError(f"SQLMETRICS_REGISTRIES={text!r} cannot be used: expected auto, default or all")
    return text


def checked(result: Settings) -> Settings:
    """Return the settings if they can be used. Raises ValueError that names the wrong one."""
    for name, (is_right, wanted) in _WANTED.items():
        found = getattr(result, name)
        if not is_right(found):
            shown = f"{found:#o}" if name == "mode" and isinstance(found, int) else repr(found)
            raise ValueError(f"{name} is {shown}; it must be {wanted}")
    result.gid()
    return result


def _is_whole(number: object, least: int, most: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and least <= number <= most


def _is_interval(seconds: object) -> bool:
    return type(seconds) is not bool and isinstance(seconds, (int, float)) and 0 < seconds <= _LONGEST_INTERVAL


_WANTED: dict[str, tuple[Callable[[object], bool], str]] = {
    "flush_interval": (_is_interval, "a number of seconds, more than 0 and a day at most"),
    "process_identifier": (callable, "a function without arguments"),
    "mode": (lambda bits: _is_whole(bits, 0, 0o777), "permission bits, such as 0o600 or 0o660"),
    "keep_dead": (lambda number: _is_whole(number, 0, _MOST_ROWS), "a whole number of processes, 0 or more"),
    "max_series": (
        lambda number: number is None or _is_whole(number, 1, _MOST_ROWS),
        "a whole number of label sets, 1 or more",
    ),
}
"""For each setting but the group: whether a value can be used, and what is wanted."""


def resolve(path: str | os.PathLike[str] | None = None) -> str:
    """Return the absolute path of the store's main file; nothing is created or opened.

    `path`, else ``SQLMETRICS_PATH``, else ``PROMETHEUS_MULTIPROC_DIR`` (or its lower-case form) names a
    file or an existing folder, in which the store is ``metrics.sqlite3``. The folder's symlinks are
    resolved (``/var/run`` is one), the file's own name is not. A file's folder may be missing if `make_folder`
    makes it. Raises PathError, or ForeignFileError if the folder is another user's trap.
    """
    source, text = named(path)
    _refuse_other_than_utf_8(source, text)
    if os.path.isdir(text):
        _refuse_foreign(os.path.abspath(text))
        return os.path.join(os.path.realpath(text), STORE_NAME)
    if source in PATH_VARIABLES[1:]:
        raise PathError(f"{source}={text!r} is not an existing folder; create it, or set SQLMETRICS_PATH to a file")
    folder, name = os.path.split(os.path.abspath(text))
    _refuse_foreign(folder)
    if not os.path.isdir(folder) and not _may_be_made(folder):
        raise PathError(f"{source} is {text!r}, but the folder {folder!r} does not exist; create it first")
    if not os.path.splitext(name)[1] and not os.path.exists(text):
        raise PathError(
            f"{source} is {text!r}, which is no existing folder and has no suffix to be a file's name;"
            f" create the folder, or name a file such as {os.path.join(text, STORE_NAME)!r}"
        )
    _refuse_db(source, text, os.path.realpath(folder), name)
    return os.path.join(os.path.realpath(folder), name)


def make_folder(path: str, gid: int) -> None:
    """Make the folder of the store at `path` if there is none, below a folder such as ``/dev/shm``.

    Only this user may enter it; with a group `gid` >= 0, that group too. Elsewhere, a missing folder is a typing
    error, which would otherwise be found only when the wrong disk is full. Raises PathError if this process may not
    make it, or StoreError if there is no room for it now.
    """
    folder = os.path.dirname(path)
    if not _may_be_made(folder):
        return
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:  # another process of the app has begun, too
        return
    except OSError as error:
        check_writable(folder)
        raise StoreError(f"{path}: the store cannot be made or opened: {error}") from error
    if gid >= 0:
        _share_new_folder(folder, gid)


def _share_new_folder(folder: str, gid: int) -> None:
    try:
        share_folder(folder, gid)
    except OSError as error:
        with contextlib.suppress(OSError):  # so that the next attempt does not find it as it should not be
            os.rmdir(folder)
        raise PathError(f"{folder}: mode {_SHARED_FOLDER:o} and group {gid} cannot be set: {error}") from error


def share_folder(folder: str, gid: int) -> None:
    """Let a group use a folder that only its owner could use; new files there get the group. Raises OSError."""
    os.chown(folder, -1, gid)
    os.chmod(folder, _SHARED_FOLDER)


def is_open_to_all(folder: str) -> bool:
    """Whether anybody may make files in a folder, and only their owners may delete them (``/dev/shm``, ``/tmp``)."""
    try:
        mode = os.stat(folder).st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH and mode & stat.S_ISVTX)


def _may_be_made(folder: str) -> bool:
    return not os.path.lexists(folder) and is_open_to_all(os.path.dirname(folder))


def _refuse_foreign(folder: str) -> None:
    """Raise ForeignFileError if another user has put a folder or link where the app's folder should be."""
    if not is_open_to_all(os.path.dirname(folder)) or not os.path.lexists(folder):
        return
    status = os.lstat(folder)
    is_trap = stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_IWOTH
    if is_trap and status.st_uid not in (0, os.geteuid()):
        raise ForeignFileError(
            f"{folder} ({stat.filemode(status.st_mode)}) belongs to uid {status.st_uid} (this is uid {os.geteuid()}):"
            " its owner can delete and replace the files in it; name another folder"
        )


def is_named() -> bool:
    """Whether the environment names a store."""
    return any(os.environ.get(variable) for variable in PATH_VARIABLES)


def is_the_peers(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder that ``PROMETHEUS_MULTIPROC_DIR`` (or its lower-case form) names now."""
    named = next((os.environ[name] for name in PATH_VARIABLES[1:] if os.environ.get(name)), None)
    return named is not None and os.path.realpath(path) == os.path.realpath(named)


def named(path: str | os.PathLike[str] | None) -> tuple[str, str]:
    """Return what names the store, `path` or a variable, and the text of it. Raises PathError if nothing does."""
    if path is not None and os.fspath(path):
        return "path", os.fspath(path)
    for variable in PATH_VARIABLES:
        if os.environ.get(variable):
            return variable, os.environ[variable]
    empty = "" if path is None else f" (path is {path!r})"
    raise PathError(
        f"no store was named{empty}: give a path (--path on the command line), or set SQLMETRICS_PATH to a file or"
        f" folder. None of {', '.join(PATH_VARIABLES)} is set"
    )


def _refuse_other_than_utf_8(source: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PathError(f"{source} is {text!r}, which is not UTF-8; SQLite opens no such file, name another") from None


def _refuse_db(source: str, text: str, folder: str, name: str) -> None:
    for variable in PATH_VARIABLES[1:]:
        directory = os.environ.get(variable)
        if directory and name.endswith(".db") and folder == os.path.realpath(directory):
            raise PathError(
                f"{source} is {text!r}, a .db file in {variable}: prometheus_client reads every *.db there as one of"
                f" its own, and start scripts delete them; name it {os.path.splitext(name)[0]}.sqlite3 instead"
            )


def check_writable(path: str) -> None:
    """Raise PathError if the folder of `path` is gone, or does not let this process create the store's files."""
    folder = os.path.dirname(path)
    if not os.path.lexists(folder):
        raise PathError(f"the folder {folder!r} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        mode = stat.filemode(os.stat(folder).st_mode)
        raise PathError(
            f"the folder {folder!r} ({mode}) cannot be written by uid {os.geteuid()}:"
            " SQLite needs to create files beside the store; change its owner or mode, or name another folder"
        )
