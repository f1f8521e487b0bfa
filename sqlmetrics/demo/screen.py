"""What the demo shows: plain tables that fit 80 columns, on a terminal and in a log alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .acts import QUERIES, Findings
from .checks import LABELS, Check
from .crew import MEANINGS, Shown
from .load import Client
from .server import Server, memory_folder
from .shell import Rows, reader

MIN_WIDTH = 80
"""A narrower terminal breaks lines itself: better than cut numbers."""


class Screen:
    """The demo's output, part by part, in the order of the methods."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._console = Console(highlight=False)
        self._console.width = max(self._console.width, MIN_WIDTH)

    def intro(self, server: Server) -> None:
        """Say what has been started, and how."""
        self._line(f"[bold]One gunicorn on port {server.port}, {server.workers} workers, one SQLite store[/]")
        self._command(f"export SQLMETRICS_PATH={server.folder}")
        self._command(f"gunicorn -c python:sqlmetrics.gunicorn -w {server.workers} sqlmetrics.demo.app:app")
        self._line()

    @contextmanager
    def progress(self, requests: int) -> Iterator[Callable[[], None]]:
        """Show a bar while requests are sent; yields what is to be called for each."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task("requests", total=requests)
            yield lambda: bar.advance(task)

    def killed(self, victim: str, successor: str) -> None:
        """Say who was killed and who came."""
        self._line(f"Halfway, worker {victim} was killed (SIGKILL) in the middle of a request.")
        self._line(f"gunicorn started worker {successor} in its place.")

    def requests(self, client: Client, findings: Findings) -> None:
        """Requests sent against requests counted."""
        table = self._table("Requests", ">sent", ">answered", ">counted", "")
        for (path, status), check in zip(sorted(client.answered), findings.requests, strict=False):
            name = f'GET {path}  [dim]path="{LABELS.get(path, path)}", status="{status}"[/]'
            table.add_row(name, _number(check.expected), _number(check.expected), _number(check.found), _mark(check))
        for path, number in client.unanswered().items():
            table.add_row(f"GET {path}  [dim]cut off by the kill[/]", _number(number), "0", "0", "")
        total = findings.requests[-2]
        sent = _number(client.sent.total())
        table.add_row("[bold]total", sent, _number(total.expected), _number(total.found), _mark(total))
        self._show(table)

    def gauges(self, findings: Findings) -> None:
        """The ten modes before and after the kill."""
        table = self._table("Gauges", ">before", ">after the kill", "", "what it shows")
        for mode, before, after in zip(MEANINGS, findings.gauges_before, findings.gauges_after, strict=True):
            table.add_row(mode, _shown(before.found), _shown(after.found), _mark(before, after), MEANINGS[mode])
        before, after = findings.in_progress
        table.add_row(
            "livesum", _shown(before.found), _shown(after.found), _mark(before, after), "requests in progress"
        )
        self._show(table)

    def shell(self, findings: Findings) -> None:
        """What the three views say to another program."""
        self._line(f"\n[bold]The same from outside[/], with {reader()}; rows are about a second old")
        for sql, rows in zip(QUERIES, findings.rows, strict=True):
            self._line(f"[green]sqlite>[/] {escape(sql)};")
            self._rows(rows)

    def files(self, folder: str) -> None:
        """The files of the store."""
        table = self._table("Files", ">KiB on disk")
        for name in sorted(os.listdir(folder)):
            table.add_row(name, _number(os.stat(os.path.join(folder, name)).st_blocks // 2))
        self._show(table)

    def verdict(self, checks: list[Check]) -> int:
        """The last word, and what to try next if it is a good one; returns the exit status."""
        wrong = [check for check in checks if not check.is_right]
        for check in wrong:
            self._line(
                f"[bold red]WRONG[/] {check.what}: expected {_plain(check.expected)}, found {_plain(check.found)}"
            )
        if wrong:
            self._line(f"{len(wrong)} of {len(checks)} checks failed.")
            return 1
        self._line(f"\n[bold green]All {len(checks)} checks hold.[/] Try it yourself:")
        self._next()
        return 0

    def trouble(self, message: str) -> None:
        """Say why the demo has not come to its end."""
        self._renew()  # a signal in the midst of a line leaves the old one waiting for the line's end
        self._line(f"[bold red]The demo stopped:[/] {escape(message)}")

    def _next(self) -> None:
        self._command(f"export SQLMETRICS_PATH={memory_folder()}/demo.sqlite3")
        self._command("gunicorn -c python:sqlmetrics.gunicorn -w 4 sqlmetrics.demo.app:app &")
        self._command("curl http://127.0.0.1:8000/ http://127.0.0.1:8000/metrics")
        self._command('sqlite3 -readonly -box $SQLMETRICS_PATH "SELECT * FROM processes"')
        self._line(f"\nThe app to copy: {Path(__file__).with_name('app.py')}")

    def _line(self, text: str = "") -> None:
        self._console.print(text, soft_wrap=True)

    def _command(self, command: str) -> None:
        self._line(f"[green]$[/] {escape(command)}")

    def _table(self, title: str, *columns: str) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column(f"[not dim bold]{title}", no_wrap=True, overflow="fold")
        for column in columns:
            table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
        return table

    def _show(self, table: Table) -> None:
        self._line()
        self._console.print(table)

    def _rows(self, rows: Rows) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
        for name, value in (rows[0] if rows else {}).items():
            table.add_column(name, justify="left" if isinstance(value, str) else "right", no_wrap=True, overflow="fold")
        for row in rows:
            table.add_row(*(value if isinstance(value, str) else _number(value) for value in row.values()))
        self._console.print(table)


def _mark(*checks: Check) -> str:
    return "[green]ok[/]" if all(check.is_right for check in checks) else "[bold red]WRONG[/]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.10g}"


def _plain(found: object) -> str:
    return _number(found) if isinstance(found, (int, float)) else escape(str(found))


def _shown(value: Shown) -> str:
    if isinstance(value, dict):
        return " ".join(map(_number, sorted(value.values())))
    return _number(value)
