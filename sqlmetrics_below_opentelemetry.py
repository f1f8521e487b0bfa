"""What `opentelemetry-instrument` calls below `sqlmetrics run`: its `sitecustomize` is the first, and runs no other.

The entry point ``opentelemetry_pre_instrument`` is what it offers instead (`_load_instrumentors` in the package
opentelemetry-instrumentation). This module is imported in every Python that is instrumented, with or without our
launcher, so it lies beside the package: a module in it would import `sqlmetrics`, or whatever an app calls so.
"""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location

_BOOTSTRAP = os.path.join("sqlmetrics", "bootstrap")


def run_hidden_bootstrap() -> None:
    """Run the launcher's `sitecustomize` if its folder is still in `sys.path`; it takes that out when it runs."""
    hidden = next((folder for folder in sys.path if folder.endswith(_BOOTSTRAP)), None)
    if hidden is None:
        return
    spec = spec_from_file_location("sqlmetrics_bootstrap", os.path.join(hidden, "sitecustomize.py"))
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module_from_spec(spec))
