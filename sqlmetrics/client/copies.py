"""Makes sure that only one copy of this package at a time has `prometheus_client` switched to its store.

An interpreter may load several copies: a vendored one, or a new one after a test suite has taken the modules out of
`sys.modules`, where the old code goes on running. A second copy would take the replaced names for
`prometheus_client`'s own.
"""

from __future__ import annotations

import prometheus_client

from ..errors import InstallError

_MARK = "_switched_by_sqlmetrics"
_came_late = hasattr(prometheus_client, _MARK)
"""Whether another copy had replaced the names before this one was imported, which so never saw the original ones."""


def refuse_others(owner: object) -> None:
    """Raise InstallError if another copy of this package has `prometheus_client` switched, or had at our import.

    owner: an object that stands for this copy.
    """
    found, place = getattr(prometheus_client, _MARK, (owner, "there before"))
    if found is not owner or _came_late:
        raise InstallError(
            f"another copy of sqlmetrics (from {place}) had switched prometheus_client when this one (from {__file__})"
            " was to do so; import one of them only, and call its uninstall() before you reload it or take it out of"
            " sys.modules"
        )


def mark(owner: object) -> None:
    """Note that this copy has `prometheus_client` switched. Raises InstallError."""
    refuse_others(owner)
    setattr(prometheus_client, _MARK, (owner, __file__))


def unmark(owner: object) -> None:
    """Undo `mark`, unless another copy has `prometheus_client` switched."""
    if getattr(prometheus_client, _MARK, (None, ""))[0] is owner:
        delattr(prometheus_client, _MARK)
