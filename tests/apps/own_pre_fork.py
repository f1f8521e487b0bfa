"""A user's own gunicorn configuration: a hook of its own is in the place of one of ours."""

from sqlmetrics.gunicorn import child_exit, on_starting, post_fork

__all__ = ["child_exit", "on_starting", "post_fork", "pre_fork"]


def pre_fork(server, worker):
    server.log.info("a hook of the user's own ran too")
