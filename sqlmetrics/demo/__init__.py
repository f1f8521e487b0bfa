"""`sqlmetrics demo`: a real gunicorn, real requests, a killed worker, and every number checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .story import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    """Import `run` when it is asked for: the workers load `.app` from here, and need no rich."""
    if name != "run":
        raise AttributeError(name)
    from .story import run

    return run
