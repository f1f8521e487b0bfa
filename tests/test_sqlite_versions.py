"""Versions of SQLite that can lose committed rows are told of, in the log and by the command line."""

from __future__ import annotations

import sys

import pytest
from outsiders import python
from prometheus_client import Counter

import sqlmetrics
from sqlmetrics import cli
from sqlmetrics.rows import wal

FIXED = ((3, 44, 6), (3, 44, 7), (3, 50, 7), (3, 50, 8), (3, 51, 3), (3, 51, 4), (3, 52, 0), (3, 54, 1), (4, 0, 0))
NOT_FIXED = ((3, 7, 0), (3, 40, 1), (3, 43, 2), (3, 44, 5), (3, 45, 0), (3, 45, 9), (3, 49, 2), (3, 50, 6), (3, 51, 2))


@pytest.mark.parametrize("version", [*FIXED, *NOT_FIXED])
def test_versions_with_the_fix_are_told_from_those_without(version: tuple[int, int, int]) -> None:
    """3.51.3 and what follows it, and the releases of two older branches that got it."""
    assert wal.is_fixed(version) is (version in FIXED)
    assert ("3.51.3" in wal.warning(version)) is (version in NOT_FIXED)


def test_the_version_is_that_of_the_library() -> None:
    """The one that apsw uses, asked in SQL in another process."""
    asked = python("import apsw; print(apsw.Connection(':memory:').execute('SELECT sqlite_version()').get)")
    assert ".".join(map(str, wal.version())) == asked.strip()


def test_the_log_tells_of_an_old_one_once(path: str) -> None:
    """Per process, at set-up; the app works."""
    script = """
    import sys, logging
    import sqlmetrics, prometheus_client
    from sqlmetrics.rows import wal
    logging.basicConfig(stream=sys.stdout)
    wal.version = lambda: (3, 46, 1)
    for number in range(2):
        sqlmetrics.install(f"{sys.argv[1]}.{number}")
        sqlmetrics.uninstall()
    sqlmetrics.install(sys.argv[1]).flush()
    prometheus_client.Counter("requests", "").inc()
    print(sqlmetrics.generate_latest().decode())
    """
    printed = python(script, path)
    assert printed.count("SQLite 3.46.1") == 1
    assert "requests_total 1.0" in printed


def test_the_log_says_nothing_of_a_new_one(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """With what the tests run on."""
    sqlmetrics.install(path)
    Counter("requests", "Requests").inc()
    assert caplog.messages == []


@pytest.mark.parametrize("version", [(3, 46, 1), (3, 54, 1)])
def test_the_command_line_tells_which_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: tuple[int, int, int]
) -> None:
    """And what is wrong with it, where something is."""
    monkeypatch.setattr(wal, "version", lambda: version)
    monkeypatch.setattr(sys, "argv", ["sqlmetrics", "--version"])
    with pytest.raises(SystemExit) as done:
        cli.main()

    printed = " ".join(capsys.readouterr().out.split())
    assert done.value.code == 0
    assert f"sqlmetrics {sqlmetrics.__version__} (" in printed
    assert f"SQLite {'.'.join(map(str, version))})" in printed
    assert ("can lose committed rows" in printed) is (version == (3, 46, 1))
