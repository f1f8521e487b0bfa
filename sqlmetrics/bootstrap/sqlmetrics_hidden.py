"""The `sitecustomize` here is hidden where another launcher's is found first, and runs no other one.

Then this folder is still in `sys.path`, in front of the packages. So a module here that is called like a package is
found before it: it imports this one, which runs our `sitecustomize`, and then the module becomes the package.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location

TYPE_CHECKING = False  # as in `sitecustomize`
if TYPE_CHECKING:
    from typing import Any


def become_package(name: str, file: str) -> None:
    """Have a module that is called like a package, and is being imported, be that package from now on.

    It is the same object: import hooks of others have it in hand, and go on with it when this returns.
    """
    leave_path(file)
    module = sys.modules.pop(name)
    spec: Any = find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.modules[name] = module
    module.__class__ = type(sys)  # not a lazy one any more, which is being loaded
    vars(module).clear()
    vars(module).update(vars(module_from_spec(spec)))
    spec._initializing = True  # other threads wait, as for every module that is being imported
    try:
        spec.loader.exec_module(module)
        vars(module)  # has a lazy loader load it now
    finally:
        spec._initializing = False


def leave_path(file: str) -> None:
    """Take the folder of a file out of `sys.path`, however it is written there."""
    here = os.path.dirname(os.path.abspath(file))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]


def _run_sitecustomize() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    spec: Any = spec_from_file_location("sqlmetrics_bootstrap", os.path.join(here, "sitecustomize.py"))
    spec.loader.exec_module(module_from_spec(spec))


_run_sitecustomize()  # once: other threads wait for this module
