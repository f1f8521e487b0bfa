"""A user's own gunicorn configuration that imports the hooks."""

from sqlmetrics.gunicorn import child_exit, on_starting

__all__ = ["child_exit", "on_starting"]

workers = 2


def when_ready(server):
    server.log.info("a hook of the user's own ran too")
