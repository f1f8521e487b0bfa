"""The real files, also while a test of the app's has put false ones in the place of `os`.

Such tools (pyfakefs) go through the modules that are loaded, and where one has `os` or `fcntl` put another in its
place. The store's files are not the test's: processes and the flusher go on with them. So the package's modules have
something in that place that leads to the same module, but is none, and so is left alone.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType

_FILES = ("os", "fcntl", "shutil")


class _Same:
    """Has what a module has, whatever is read or set."""

    def __init__(self, module: ModuleType):
        self.__dict__ = module.__dict__


def keep(package: str) -> None:
    """Have all modules of a package that are loaded keep to the real files from now on."""
    inside = [module for name, module in sys.modules.copy().items() if f"{name}.".startswith(f"{package}.")]
    for module in inside:
        for name in _FILES:
            if isinstance(found := module.__dict__.get(name), ModuleType):
                setattr(module, name, _Same(found))
        module.__dict__.setdefault("open", partial(open))
