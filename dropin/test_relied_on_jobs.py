"""What we rely on in Celery, dramatiq and rq: a release that changes it fails here, and the failure says what it was.

The rows in `test_jobs.py` would fail, too, but would not tell why.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

PAGES = "docs/how-to/servers"


def holds(library: str, fact: bool, was: str, relies: str) -> None:
    """Fail, unless what was so in a library is so still."""
    assert fact, f"{library} {version(library)}: it is not so any more that {was}. This relies on it: {relies}"


def said(program: str, folder: Path, **variables: str) -> list[str]:
    """What a program prints in a Python of its own, line by line."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()


def test_billiard_runs_pythons_hooks_at_a_fork(folder: Path) -> None:
    """Celery's children come from there."""
    program = """
        import os, billiard
        os.register_at_fork(before=lambda: print("before", flush=True), after_in_child=lambda: os.write(1, b"after\\n"))
        child = billiard.get_context("fork").Process(target=int)
        child.start()
        child.join()
    """
    holds(
        "billiard",
        said(program, folder) == ["before", "after"],
        "its forks run the hooks of os.register_at_fork",
        "sqlmetrics/process/fork.py: without them the parent's connection and flusher go into the child, as in C",
    )


def test_celery_has_a_signal_for_the_main_process() -> None:
    """Where the page's example begins to answer scrapes."""
    from celery import signals

    holds("celery", hasattr(signals, "celeryd_init"), "celery.signals has celeryd_init", f"{PAGES}/celery.md")


def test_dramatiqs_middleware_hands_over_the_folder_that_it_names_in_the_environment(folder: Path) -> None:
    """So that we can tell whose folder it is."""
    program = """
        import os
        import prometheus_client
        from dramatiq.middleware.prometheus import DB_PATH, Prometheus
        prometheus_client.multiprocess = type("", (), {"mark_process_dead": lambda *given: print(*given)})
        middleware = Prometheus()
        middleware.after_process_boot(None)
        print(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        middleware.after_worker_shutdown(None, None)
        print(os.getpid())
    """
    itself = str(folder / "its own")
    named, handed_over, pid = said(program, folder, dramatiq_prom_db=itself)
    holds(
        "dramatiq",
        (named, handed_over) == (itself, f"{pid} {itself}"),
        "its middleware sets PROMETHEUS_MULTIPROC_DIR to what dramatiq_prom_db says, and calls"
        " multiprocess.mark_process_dead(pid, path) with the same folder",
        f"sqlmetrics/store/installed.py (meant), {PAGES}/dramatiq.md: another folder is not taken for the store in use",
    )


def test_dramatiqs_middleware_looks_up_the_collector_at_each_scrape(folder: Path) -> None:
    """In the module, and without a path: that of the process that answers is the installed store."""
    program = """
        import io
        import prometheus_client.multiprocess
        from dramatiq.middleware import prometheus
        prometheus_client.multiprocess.MultiProcessCollector = lambda *given, **named: print(len(given), named)
        handler = prometheus._metrics_handler.__new__(prometheus._metrics_handler)
        handler.send_response = handler.send_header = handler.end_headers = lambda *given: None
        handler.wfile = io.BytesIO()
        handler.do_GET()
        print([function.__name__ for function in prometheus.Prometheus().forks])
    """
    holds(
        "dramatiq",
        said(program, folder, dramatiq_prom_db=str(folder / "its own")) == ["1 {}", "['_run_exposition_server']"],
        "a process forked for _run_exposition_server makes multiprocess.MultiProcessCollector(registry) at each scrape",
        f"{PAGES}/dramatiq.md: its metrics are read from the store",
    )


def test_rqs_pool_forks_its_workers_after_it_has_read_its_settings() -> None:
    """The page's settings answer scrapes in the main process, and import the tasks once."""
    from multiprocessing import get_context

    from rq import worker_pool

    holds(
        "rq",
        worker_pool.ForkProcess is get_context("fork").Process,
        "the workers of `rq worker-pool` are forked",
        f"{PAGES}/rq.md: if each imports settings.py again, all but one fail to listen on the port",
    )


def test_rqs_worker_classes_have_these_names() -> None:
    """As they stand in the page's commands."""
    from rq import worker

    for name in ("SpawnWorker", "SimpleWorker"):
        holds("rq", hasattr(worker, name), f"rq.worker has {name}", f"{PAGES}/rq.md")
