"""The demo from beginning to end, and an end that leaves nothing behind."""

from __future__ import annotations

import http.client
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from .acts import Acts
from .screen import Screen
from .server import DemoError, Server, memory_folder


def run(*, requests: int, workers: int) -> int:
    """Run the demo and show it; returns the exit status, 0 if every number was right.

    requests: how many to send, besides the few that set gauges. workers: how many gunicorn starts, at least 2.
    """
    screen = Screen()
    if workers < 2 or requests < 1:
        screen.trouble("it takes 1 request and 2 workers at least: one worker is killed while another is asked")
        return 2
    try:
        with _ends_like_ctrl_c(), _folder() as folder, Server(folder, workers) as server:
            return tell(Acts(server), requests, screen)
    except KeyboardInterrupt:
        screen.trouble("gunicorn and the temporary folder are gone")
        return 130
    except (DemoError, OSError, http.client.HTTPException) as error:
        screen.trouble(str(error) or type(error).__name__)
        return 1


def tell(acts: Acts, requests: int, screen: Screen) -> int:
    """Do all acts in their order and show what came of them; returns the exit status."""
    screen.intro(acts.server)
    with screen.progress(requests) as step:
        acts.load(requests // 2, step)
        acts.set_gauges()
        victim, successor = acts.kill_a_worker()
        acts.load(requests - requests // 2, step)
        acts.look()
    screen.killed(victim, successor)
    screen.requests(acts.client, acts.findings)
    screen.gauges(acts.findings)
    screen.shell(acts.findings)
    screen.files(acts.server.folder)
    return screen.verdict(acts.findings.all())


@contextmanager
def _folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="sqlmetrics-demo-", dir=memory_folder())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """A demo that is terminated, or whose terminal is closed, stops its gunicorn too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
