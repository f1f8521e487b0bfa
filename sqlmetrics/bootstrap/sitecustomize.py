"""Run at the start of every Python below `sqlmetrics run`: the first import of `prometheus_client` installs the store.

Not at once, as most Pythons that a server starts never count anything, and what `prometheus_client` imports (`ssl`,
`threading`) should not be there before gevent or eventlet patch it. This folder is on ``PYTHONPATH``, so it must not
have any other module in it, and this module imports none of the package until it is needed.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from _thread import get_ident

TYPE_CHECKING = (
    False  # type checkers know the name; `typing` itself takes milliseconds that every Python here would pay
)
if TYPE_CHECKING:
    import types
    from collections.abc import Callable
    from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_PEER, _OURS = "prometheus_client", "sqlmetrics"
_PLACES = 4
"""The most places of the finder in `sys.meta_path`."""


def _install() -> None:
    """Install the store, or print why this process does without: metrics must not stop an app."""
    try:
        from sqlmetrics import SQLMetricsError, config, install
    except ImportError as error:  # or some other module is called so
        _complain(f"it cannot import sqlmetrics ({error}); install it there too")
        return
    try:
        store = install()
        if os.environ.get(config.RUN_VARIABLE) == store.path:
            store.join_run()  # the lock that the launcher handed on is lost where a daemon closes what it inherits
    except (ValueError, OSError, SQLMetricsError) as error:
        _complain(error)


def _complain(why: object) -> None:
    print(  # noqa: T201 - the app's logging is not set up yet
        f"sqlmetrics: {sys.executable} (pid {os.getpid()}) counts in its own memory, seen by nobody else: {why}",
        file=sys.stderr,
    )


class _Loader:
    """Replaces a module's loader until that has executed the module; then installs the store.

    It changes nothing of the loader, because other launchers wrap loaders, too: this one or that one.
    """

    def __init__(self, finder: _Finder, loader: Any):
        self._finder, self._loader = finder, loader

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # a copy in the making has none yet
            raise AttributeError(name)
        return getattr(self._loader, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The loader's class: some tools check with `isinstance()` whether a loader reads source code."""
        return type(self._loader)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        """See `importlib.abc.Loader`."""
        create = getattr(self._loader, "create_module", None)
        module: types.ModuleType | None = create(spec) if create else None
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        spec: Any = module.__spec__
        if spec is not None and spec.loader is self:
            spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        execute = getattr(self._loader, "exec_module", None)
        if execute:
            self._finder.follow(execute, module)
        else:  # one of before Python 3.4, which uses the module that is in sys.modules
            self.load_module(module.__name__)

    def load_module(self, name: str) -> types.ModuleType:
        """See `importlib.abc.Loader`."""
        module: types.ModuleType = self._finder.follow(self._loader.load_module, name)
        return module


class _Finder:
    """Finds `prometheus_client` as the other finders do, and installs the store when the module has been executed.

    If the app imports this package first, the store is installed at the end of that import. Code that only asks whether
    there is such a module gets the usual answer, and the import installs the store later.
    """

    def __init__(self) -> None:
        self._waits = True
        self._asked: set[int] = set()  # threads

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        self._stay_first()
        thread = get_ident()
        if name not in (_PEER, _OURS) or not self._waits or name in sys.modules or thread in self._asked:
            return None
        from importlib.util import find_spec  # here: it may load `threading`

        self._asked.add(thread)  # other finders may ask all finders, too
        try:
            spec: Any = find_spec(name)
        finally:
            self._asked.discard(thread)
        if spec is not None and spec.loader is not None and type(spec.loader) is not _Loader:
            spec.loader = _Loader(self, spec.loader)
        found: importlib.machinery.ModuleSpec | None = spec
        return found

    def _stay_first(self) -> None:
        """Be the first finder, because nobody asks the others after one has found a module.

        Nothing is ever taken out of the list: a thread that goes through it at that moment would skip a finder.
        """
        finders = sys.meta_path
        if self._waits and finders[:1] != [self] and finders.count(self) < _PLACES:  # others may stay first, too
            finders.insert(0, self)

    def follow(self, load: Callable[[Any], Any], what: object) -> Any:
        """Load a module, and install the store at the end, unless it is part of another module that does so."""
        if not self._waits:
            return load(what)
        self._waits = False
        try:
            loaded = load(what)
        except BaseException:
            self._waits = True  # the app may mend what was missing, and import it again
            raise
        _install()
        return loaded


def _leave_path() -> None:
    """Take this folder out of `sys.path`: if it is there later, this module was hidden, and has not run."""
    while _HERE in sys.path:
        sys.path.remove(_HERE)


def _run_the_other_one() -> None:
    """Run the `sitecustomize` that this one hides: the system's Python and other launchers have one."""
    spec = importlib.machinery.PathFinder.find_spec(__name__)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec  # here: it may load `threading`

        module = module_from_spec(spec)
        sys.modules[__name__] = module
        spec.loader.exec_module(module)


def _is_own_command() -> bool:
    """Whether this is `sqlmetrics` or `python -m sqlmetrics`: a command looks at a store, and does not count in it."""
    given = iter(sys.orig_argv[1:])
    for one in given:
        if one in ("-W", "-X", "--check-hash-based-pycs"):
            next(given, None)
        elif one == "-m":
            return next(given, None) == _OURS
        elif not one.startswith("-"):
            return os.path.basename(one) == _OURS and os.path.isfile(one)
    return False


def _stay_in_front() -> None:
    """Be the first folder for Pythons that this one starts: other launchers put theirs first, and run only that."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if _HERE in folders[1:]:
        os.environ["PYTHONPATH"] = os.pathsep.join([_HERE, *(folder for folder in folders if folder != _HERE)])


_leave_path()
if hasattr(sys.modules.get(_PEER), "__path__"):  # a .pth file was first; `prometheus_client.py` here is no package
    _install()
elif not _is_own_command():
    sys.meta_path.insert(0, _Finder())
if __name__ == "sitecustomize":  # else another one has run, and then this file by its path
    _run_the_other_one()
_stay_in_front()
