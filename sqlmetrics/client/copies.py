"""One copy of this package at a time switches `prometheus_client`, however many an interpreter has loaded.

Some are vendored, and some test suites take modules out of `sys.modules`: the code of the old copy goes on all the
same. A second one would take the replaced names for `prometheus_client`'s own.
"""

from __future__ import annotations

import prometheus_client

from ..errors import InstallError

_MARK = "_switched_by_sqlmetrics"
_came_late = hasattr(prometheus_client, _MARK)
"""Whether this copy was imported when another had replaced the names: it knows no others."""


def refuse_others(owner: object) -> None:
    """Raise InstallError if `prometheus_client` is switched by a copy of this package with another owner, or was."""
    found, place = getattr(prometheus_client, _MARK, (owner, "there before"))
    if found is not owner or _came_late:
        raise InstallError(
            f"another copy of sqlmetrics (from {place}) had switched prometheus_client when this one (from {__file__})"
            " was to do so; import one of them only, and call its uninstall() before you reload it or take it out of"
            " sys.modules"
        )


def mark(owner: object) -> None:
    """Note that `prometheus_client` is switched by this copy. Raises InstallError."""
    refuse_others(owner)
    setattr(prometheus_client, _MARK, (owner, __file__))


def unmark(owner: object) -> None:
    """Note that it is not, unless it is by another copy."""
    if getattr(prometheus_client, _MARK, (None, ""))[0] is owner:
        delattr(prometheus_client, _MARK)
