"""Run at the start of every Python below `sqlmetrics run`: the first import of `prometheus_client` installs the store.

Not at once, as most Pythons that a server starts never count anything, and what `prometheus_client` imports (`ssl`,
`threading`) should not be there before gevent or eventlet patch it. This folder is on ``PYTHONPATH``, so it must not
have any other module in it, and this module imports none of the package until it is needed.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys

TYPE_CHECKING = (
    False  # type checkers know the name; `typing` itself takes milliseconds that every Python here would pay
)
if TYPE_CHECKING:
    import types
    from importlib.abc import Loader
    from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_PEER, _OURS = "prometheus_client", "sqlmetrics"


def _install() -> None:
    """Install the store, or say why this process goes without: an app is not stopped by its metrics."""
    try:
        from sqlmetrics import SQLMetricsError, config, install
    except ImportError as error:  # or some other module is called so
        _complain(f"it cannot import sqlmetrics ({error}); install it there too")
        return
    try:
        store = install()
        if os.environ.get(config.RUN_VARIABLE) == store.path:
            store.join_run()  # the lock that the launcher handed on is lost where a daemon closes what it inherits
    except (ValueError, SQLMetricsError) as error:
        _complain(error)


def _complain(why: object) -> None:
    print(  # noqa: T201 - the app's logging is not set up yet
        f"sqlmetrics: {sys.executable} (pid {os.getpid()}) counts in its own memory, seen by nobody else: {why}",
        file=sys.stderr,
    )


class _Finder:
    """Finds `prometheus_client` as the other finders do, and has its loader install the store at the end.

    If somebody imports this package first, it is at the end of that: half of it cannot install anything. Who only
    asks whether there is such a module gets the same answer, and its import installs the store later.
    """

    def find_spec(self, name: str, *more: Any) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if name not in (_PEER, _OURS):
            return None
        others = (finder.find_spec(name, *more) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Loader) -> None:
        execute = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            del loader.exec_module
            sys.meta_path.remove(self)
            try:
                execute(module)
            except BaseException:
                sys.meta_path.insert(0, self)  # somebody may make good what was missing, and try again
                raise
            _install()

        loader.exec_module = exec_module  # type: ignore[method-assign]


def _leave_path() -> None:
    """Who finds this folder in `sys.path` later on knows that this module was hidden, and has not run."""
    while _HERE in sys.path:
        sys.path.remove(_HERE)


def _run_the_other_one() -> None:
    """Run the `sitecustomize` that this one hides, as the system's Python and other launchers have one."""
    spec = importlib.machinery.PathFinder.find_spec(__name__)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec  # here: it may load `threading`

        module = module_from_spec(spec)
        sys.modules[__name__] = module
        spec.loader.exec_module(module)


def _stay_in_front() -> None:
    """Be the first for the Pythons that this one starts: others put their folder in front, and run only their own."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if _HERE in folders[1:]:
        os.environ["PYTHONPATH"] = os.pathsep.join([_HERE, *(folder for folder in folders if folder != _HERE)])


if _PEER in sys.modules:  # a .pth file was first
    _install()
else:
    sys.meta_path.insert(0, _Finder())
_leave_path()
if __name__ == "sitecustomize":  # else another one has run, and then this file by its path
    _run_the_other_one()
_stay_in_front()
