"""What is different inside uWSGI, which embeds Python: it forks from C, and threads of Python may stand still.

* The process that loads the app forks the workers, whenever one is missing, without a word to Python. If a thread works
  at that moment, it has locks, perhaps the interpreter's own, that nobody releases in the child.
* Up to uWSGI 2.0.26, without ``--enable-threads``, a process keeps the interpreter lock while it waits for requests.
  A thread would stop wherever it is, perhaps in the middle of a transaction, with every other process locked out.

So the flusher has no thread in either case, and runs between requests where it can; see `flusher`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def _uwsgi() -> Any:
    """Return the module `uwsgi`, which exists inside uWSGI only; None elsewhere.

    It is not imported here: after a fork in the middle of the import, the child would wait for it for ever.
    """
    found = sys.modules.get("uwsgi")
    return found if hasattr(found, "has_threads") else None


def forks_from_c() -> bool:
    """Whether this process may fork from C at any moment: it is uWSGI's, but no worker, mule or spooler."""
    uwsgi = _uwsgi()
    return uwsgi is not None and not (uwsgi.worker_id() or uwsgi.mule_id() or uwsgi.i_am_the_spooler())


def worker_id() -> int:
    """Return the number of this worker, from 1; 0 elsewhere."""
    uwsgi = _uwsgi()
    return 0 if uwsgi is None else int(uwsgi.worker_id())


def can_have_threads() -> bool:
    """Whether a thread of this process can always run, and never disturbs a fork."""
    uwsgi = _uwsgi()
    return uwsgi is None or (bool(uwsgi.has_threads) and not forks_from_c())


_theirs: dict[str, Callable[[], object]] = {}


def _hook(name: str) -> property:
    """Return a property for a hook: the app sets and reads its own, uWSGI finds ours in the module's dict."""
    return property(lambda _: _theirs.get(name), lambda _, hook: _theirs.__setitem__(name, hook))


def has_master() -> bool:
    """Whether uWSGI has a master: then the process that forks does nothing else."""
    uwsgi = _uwsgi()
    return uwsgi is not None and bool(uwsgi.masterpid())


class _Hooked(ModuleType):
    """The module `uwsgi`, with hooks of ours that call the app's."""

    post_fork_hook = _hook("post_fork_hook")
    after_req_hook = _hook("after_req_hook")


def call(*, after_fork: Callable[[], object], after_request: Callable[[], object]) -> None:
    """Make uWSGI, if this is one of its processes, call these in each new worker and after each request."""
    uwsgi = _uwsgi()
    if uwsgi is not None and not isinstance(uwsgi, _Hooked):
        for name, ours in (("post_fork_hook", after_fork), ("after_req_hook", after_request)):
            if name in vars(uwsgi):
                _theirs[name] = vars(uwsgi)[name]
            vars(uwsgi)[name] = _both(ours, name)
        uwsgi.__class__ = _Hooked


def _both(ours: Callable[[], object], name: str) -> Callable[[], object]:
    def hook() -> object:
        ours()
        return _theirs[name]() if name in _theirs else None

    return hook
