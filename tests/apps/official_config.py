# The official page's gunicorn configuration; only where `multiprocess` is imported from is another.
# ruff: noqa
# fmt: off
from sqlmetrics import multiprocess

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
