"""Where in the life of an app a call comes from: while the app is being loaded, or later, when it is at work."""

from __future__ import annotations

import enum
from types import FrameType

from ..process import under_uwsgi

_MAIN = ("__main__", "__channelexec__")
"""The script of a process: whatever the process ever does runs below its body. The second one is pytest-xdist's."""
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
"""(module, function) that loads an app or runs its start-up hooks: what functions it calls to serve, if any."""
_PUSHERS = {
    ("prometheus_client.exposition", "_use_gateway"),
    ("prometheus_client.exposition", "write_to_textfile"),
    ("prometheus_client.bridge.graphite", "push"),
}
_NEAR = 12
"""Frames between a push and the registry that it asks, with room for a wrapper or two of the app's."""


class Stage(enum.Enum):
    """What an app was at when it made something."""

    LOADING = "while the app was loaded"
    SCRIPT = "in the body of the script"
    RUNNING = "in a function"


def stage(frame: FrameType | None) -> Stage:
    """What the app is at in this frame.

    A module's body, and all that it calls, is loading. So are an app factory and a start-up hook that a known server
    calls, and what uWSGI does before it forks. The body of the script itself is a case of its own: what that calls is
    the whole program.
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
    """Whoever calls the constructor of an object, which may have several in its classes."""
    while frame is not None and frame.f_code.co_name == "__init__" and frame.f_code.co_argcount:
        if frame.f_locals.get(frame.f_code.co_varnames[0]) is not made:
            break
        frame = frame.f_back
    return frame


def is_pushed(frame: FrameType | None) -> bool:
    """Whether somebody asks in order to push to a gateway, or to write a file for the node exporter."""
    for _ in range(_NEAR):
        if frame is None:
            return False
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in _PUSHERS:
            return True
        frame = frame.f_back
    return False


def place(frame: FrameType | None) -> str:
    """A frame's function and line, to be read by a person."""
    if frame is None:
        return "an unknown place"
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
