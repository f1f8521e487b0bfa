"""Finds out from the stack whether the app is being loaded, or is running."""

from __future__ import annotations

import enum
from types import FrameType

from ..process import under_uwsgi

_MAIN = ("__main__", "__channelexec__")
"""Module names of a process's script: all that the process does runs below its body. The second is pytest-xdist's."""
_OPTIMIZED = 0x1
"""The flag of a function's code (`inspect.CO_OPTIMIZED`); the bodies of modules and classes do not have it."""
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_LOADERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("gunicorn.arbiter", "start"): (),
    ("gunicorn.arbiter", "spawn_worker"): ("init_process",),
    ("gunicorn.workers.base", "init_process"): ("run",),
    ("uvicorn.config", "load"): (),
    ("uvicorn.config", "load_app"): (),
    ("uvicorn.lifespan.on", "main"): (),
    ("hypercorn.utils", "load_application"): (),
    ("hypercorn.asyncio.lifespan", "handle_lifespan"): (),
    ("hypercorn.trio.lifespan", "handle_lifespan"): (),
    ("granian._internal", "load_target"): (),
    ("starlette.applications", "build_middleware_stack"): (),
    ("fastapi.applications", "build_middleware_stack"): (),
    ("starlette.routing", "lifespan"): (),
    ("quart.app", "startup"): (),
    ("aiohttp.web_app", "startup"): (),
    ("flask.cli", "load_app"): (),
    ("django.apps.registry", "populate"): (),
    ("django.core.handlers.base", "load_middleware"): (),
    ("celery.concurrency.prefork", "process_initializer"): (),
    ("dramatiq.cli", "worker_process"): (),
}
"""By (module, function) that loads an app or runs its start-up hooks: the functions that it calls to serve, if any."""
_PUSHERS = {
    ("prometheus_client.exposition", "_use_gateway"),
    ("prometheus_client.exposition", "write_to_textfile"),
    ("prometheus_client.bridge.graphite", "push"),
}
_NEAR = 12
"""The most frames between a push and the registry that it asks, with room for a wrapper or two of the app."""


class Stage(enum.Enum):
    """What an app was doing when it made an object."""

    LOADING = "while the app was loaded"
    SCRIPT = "in the body of the script"
    RUNNING = "in a function"


def stage(frame: FrameType | None) -> Stage:
    """Return what the app is doing in this frame.

    The body of a module, and all that it calls, is LOADING. So are an app factory and a start-up hook that a known
    server calls, and what uWSGI does before it forks. The body of the script itself is SCRIPT, but what it calls is
    RUNNING, because that is the whole program.
    """
    is_body, inner = True, ""
    while frame is not None:
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        is_body = is_body and (not code.co_flags & _OPTIMIZED or code.co_name in _COMPREHENSIONS)
        if code.co_name == "<module>":
            if module not in _MAIN:
                return Stage.LOADING
            return Stage.SCRIPT if is_body else Stage.RUNNING
        serves_by = _LOADERS.get((module, code.co_name))
        if serves_by is not None and inner not in serves_by:
            return Stage.LOADING
        inner = code.co_name
        frame = frame.f_back
    return Stage.LOADING if under_uwsgi.forks_from_c() else Stage.RUNNING  # uWSGI's workers have none of its frames


def maker(made: object, frame: FrameType | None) -> FrameType | None:
    """Return the frame that calls the constructor of an object; its classes may have several constructors."""
    while frame is not None and frame.f_code.co_name == "__init__" and frame.f_code.co_argcount:
        if frame.f_locals.get(frame.f_code.co_varnames[0]) is not made:
            break
        frame = frame.f_back
    return frame


def is_pushed(frame: FrameType | None) -> bool:
    """Whether the caller pushes to a gateway, or writes a file for the node exporter."""
    for _ in range(_NEAR):
        if frame is None:
            return False
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in _PUSHERS:
            return True
        frame = frame.f_back
    return False


def place(frame: FrameType | None) -> str:
    """Return a frame's function, file and line for a message."""
    if frame is None:
        return "an unknown place"
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
