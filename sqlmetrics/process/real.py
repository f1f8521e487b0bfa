"""Keeps this package on the real files while a test of the app puts false ones in the place of `os`.

Such tools (pyfakefs) go through all loaded modules and replace their `os` and `fcntl`. But the store's files are not
the test's: other processes and the flusher go on with them. So the modules of this package have an object in that place
that has the names of the real module, but is no module, and so is not replaced.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType

_FILES = ("os", "fcntl", "shutil")


class _Same:
    """An object that has all names of a module; it shares the module's dict."""

    def __init__(self, module: ModuleType):
        self.__dict__ = module.__dict__


def keep(package: str) -> None:
    """Make all loaded modules of a package use the real files from now on."""
    inside = [module for name, module in sys.modules.copy().items() if f"{name}.".startswith(f"{package}.")]
    for module in inside:
        for name in _FILES:
            if isinstance(found := module.__dict__.get(name), ModuleType):
                setattr(module, name, _Same(found))
        module.__dict__.setdefault("open", partial(open))
