"""What is different inside uWSGI, which embeds Python: it forks from C, and threads of Python may stand still.

* The process that loads the app forks the workers, whenever one is missing, and does not tell Python. A thread that is
  at work at that moment has locks, the interpreter's own say, that nobody gives back in the child.
* Up to uWSGI 2.0.26, without ``--enable-threads``, a process keeps the interpreter lock while it waits for requests.
  A thread would stop wherever it is, in the middle of a transaction say, with every other process locked out.

So the flusher has no thread in either, and takes its turns between requests where it can; see `flusher`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def _uwsgi() -> Any:
    """The module that exists inside uWSGI only.

    Not imported: of a fork while another thread imports it, the child would wait for that thread for ever.
    """
    found = sys.modules.get("uwsgi")
    return found if hasattr(found, "has_threads") else None


def forks_from_c() -> bool:
    """Whether this process may fork at any moment without a word: it is uWSGI's, and not one that it has started."""
    uwsgi = _uwsgi()
    return uwsgi is not None and not (uwsgi.worker_id() or uwsgi.mule_id() or uwsgi.i_am_the_spooler())


def worker_id() -> int:
    """The number of this worker, from 1; 0 elsewhere."""
    uwsgi = _uwsgi()
    return 0 if uwsgi is None else int(uwsgi.worker_id())


def can_have_threads() -> bool:
    """Whether a thread of this process runs on whatever the main thread does, and is in nobody's way."""
    uwsgi = _uwsgi()
    return uwsgi is None or (bool(uwsgi.has_threads) and not forks_from_c())


_theirs: dict[str, Callable[[], object]] = {}


def _hook(name: str) -> property:
    """A name that uWSGI looks for in its module's dict, where ours stays, and that the app may set before or after."""
    return property(lambda _: _theirs.get(name), lambda _, hook: _theirs.__setitem__(name, hook))


def has_master() -> bool:
    """Whether the process that forks does nothing else."""
    uwsgi = _uwsgi()
    return uwsgi is not None and bool(uwsgi.masterpid())


class _Hooked(ModuleType):
    """The module `uwsgi`, with hooks of ours that call the app's."""

    post_fork_hook = _hook("post_fork_hook")
    after_req_hook = _hook("after_req_hook")


def call(*, after_fork: Callable[[], object], after_request: Callable[[], object]) -> None:
    """Have uWSGI, if this is a process of it, call these in each new worker, and after each request."""
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
