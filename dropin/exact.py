"""What has to hold of every server and library that a page tells how to run."""

from __future__ import annotations

from pathlib import Path

from deployment import Deployment, Row, Values, deployed
from helpers import wait_for


def assert_exact_across_a_death(row: Row, folder: Path, **environment: str) -> None:
    """Two workers or more count, one is killed, another takes its place, and every scrape is exact throughout."""
    with deployed(row, folder, **environment) as server:
        server.until(lambda: len(server.counting()) >= 2)
        assert_all_shown(server)

        before = server.counting()
        victim = min(before)
        server.kill(victim)
        if row.supervised:
            wait_for(lambda: server.process.poll() is not None)
            server.start()
        assert_all_shown(server)
        server.until(lambda: server.counting() - before)
        assert victim not in server.counting()
        server.request(20)
        assert_all_shown(server)
        log = server.log()
    assert "counts in its own memory" not in log, log
    assert "Traceback" not in log, log
    assert_tidy(server)


def assert_all_shown(server: Deployment) -> None:
    """Every scrape shows all that was answered so far."""
    expected = {sample: each * server.sent for sample, each in server.row.samples.items()}

    def is_shown(values: Values) -> bool:
        return {sample: values.get(sample) for sample in expected} == expected

    if server.row.counts_late:
        wait_for(lambda: is_shown(server.scrapes(1)[0]))
    for values in server.scrapes():
        assert is_shown(values), f"not {expected} in {values}\n{server.log()}"


def assert_tidy(server: Deployment) -> None:
    """The store's own files, sound, and none of the peer's."""
    name = server.store.name
    files = {path.name for path in server.store.parent.iterdir() if path.name.startswith(name)}
    assert files <= {name, name + "-wal", name + "-shm", name + "-cells"}
    assert list(server.folder.rglob("*.db")) == []
    assert server.shell.value("PRAGMA integrity_check") == "ok"
