"""CPU and memory of a process, from ``/proc``; a library would be too much for two numbers."""

from __future__ import annotations

import os
from typing import NamedTuple


class Usage(NamedTuple):
    """cpu_seconds: of all threads, in user and system mode; rss_bytes: resident memory; name: the program's.

    is_stopped: by SIGSTOP, a terminal or a debugger.
    """

    cpu_seconds: float
    rss_bytes: int
    name: str
    is_stopped: bool


def usage(pid: int) -> Usage | None:
    """Return the usage of a process; None if it is gone, or the system has no such files (see proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    head, _, rest = text.rpartition(")")  # a program may have any name, parentheses included
    fields = rest.split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    name, is_stopped = head.partition("(")[2], fields[0] in ("T", "t")
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"), name, is_stopped)
