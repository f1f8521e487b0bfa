"""The documentation is true: its code runs, its commands print what it shows, and its tables leave nothing out.

See `pages` for how a block is read. A ``console`` block is run by bash in the page's folder, line by line, and what it
shows below a command is compared with what the command prints.

``python tests/test_docs.py`` writes the page about the command line anew.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import wait_for
from pages import DOCS, DROPIN, PAGES, ROOT, blocks, commands

import sqlmetrics
from sqlmetrics import cli, config, errors

CLI_PAGE = DOCS / "reference" / "cli.md"
SECONDS = 60

_LINK = re.compile(r"\]\(([^)\s]+)\)")
# What a test run cannot do: install packages, make clones, or run itself.
_NOT_FEASIBLE = re.compile(r"\bvenv\b|\bpip install\b|\bgit\b|sqlmetrics demo|-- (celery|rq)\b")
_CHANGING = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+\.\d{4,}(e-\d+)?|\d+(\.\d+)?e-\d+|\b\d{3,}\b")

_CURL = """#!{python}
import sys, time, urllib.request
for attempt in range(50):
    try:
        sys.stdout.write(urllib.request.urlopen(sys.argv[-1], timeout=10).read().decode())
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit(7)
"""
_SQLITE3 = """#!{python}
import os, sys
os.environ["PATH"] = os.environ["PATH"].partition(":")[2]
sys.path.insert(0, {tests!r})
from helpers import Shell
for row in Shell(sys.argv[-2])(sys.argv[-1]):
    print(*row.values(), sep="|")
"""


class Reader:
    """A reader who follows a page, in a folder of its own that stands for /dev/shm too."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.chmod(0o1777)  # as /dev/shm is
        self.server: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        tools = folder / "bin"
        tools.mkdir()
        self._make(tools / "curl", _CURL)
        if not shutil.which("sqlite3"):
            self._make(tools / "sqlite3", _SQLITE3)
        self.environment = {
            "PATH": os.pathsep.join([str(tools), os.path.dirname(sys.executable), os.environ["PATH"]]),
            "HOME": str(folder),
            "SQLMETRICS_PATH": str(folder / "app.sqlite3"),
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{self.port}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @staticmethod
    def _make(tool: Path, source: str) -> None:
        tool.write_text(source.format(python=sys.executable, tests=str(ROOT / "tests")))
        tool.chmod(0o755)

    def here(self, text: str) -> str:
        """The text with the places of this run in it."""
        for server in ("localhost:8000", "localhost:9464"):
            text = text.replace(server, f"127.0.0.1:{self.port}")
        serve = f"sqlmetrics serve --listen 127.0.0.1:{self.port}"
        return text.replace("/dev/shm/", f"{self.folder}/").replace("sqlmetrics serve", serve)

    def write(self, name: str, text: str) -> None:
        """Write a file of the page."""
        (self.folder / name).write_text(self.here(text))

    def python(self, text: str) -> None:
        """Run a program of the page."""
        done = self._run([sys.executable, "-W", "error", "-c", self.here(text)])
        assert done.returncode == 0, f"{text}\n{done.stderr}"

    def console(self, text: str) -> None:
        """Run the commands of a block and compare what they print with what is shown."""
        for command, shown in commands(text):
            if _NOT_FEASIBLE.search(command):
                continue
            if re.search(r"(^|\s)(gunicorn|sqlmetrics serve)\s", command):
                self._serve(command)
            else:
                self._compare(command, shown)

    def _compare(self, command: str, shown: str) -> None:
        if command.startswith("sqlite3 ") and not shutil.which("sqlite3"):
            shown = ""  # the shim prints the rows in another form
        # Rows are as old as a flush interval, and a process that starts has a lock file for a moment.
        end = time.monotonic() + (5 if command.startswith(("sqlite3 ", "ls ")) else 0)
        while True:
            done = self._run(["bash", "-c", self.here(command)])
            printed = steady(done.stdout.replace(f"{self.folder}/", "/dev/shm/"))
            if done.returncode == 0 and (not shown or printed == steady(shown)):
                return
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        assert (done.returncode, printed) == (0, steady(shown)), f"{command}\n{done.stdout}{done.stderr}{self._log()}"

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )

    def _serve(self, command: str) -> None:
        self.stop()
        with (self.folder / "gunicorn.log").open("wb") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", self.here(command)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        begun = re.compile("Booting worker|^sqlmetrics: serving ", re.MULTILINE)
        wait_for(lambda: begun.search(self._log()) or self.server.poll() is not None, SECONDS)
        assert self.server.poll() is None, f"{command}\n{self._log()}"

    def _log(self) -> str:
        log = self.folder / "gunicorn.log"
        return log.read_text() if log.exists() else ""

    def stop(self) -> None:
        """End the server and its workers, if there are any."""
        server, self.server = self.server, None
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
            assert "Traceback" not in self._log(), self._log()


def steady(text: str) -> str:
    """Text without what changes from run to run: pids, times, and the widths of columns that follow from them."""
    return re.sub(r"[ ─]+", " ", _CHANGING.sub("#", text)).strip()


@pytest.fixture
def reader(folder: Path) -> Iterator[Reader]:
    """A reader who has the tutorial's app already."""
    one = Reader(folder)
    for block in blocks(DOCS / "tutorial.md"):
        if block.file == "app.py":
            one.write(block.file, block.text)
    yield one
    one.stop()


def name_of(page: Path) -> str:
    """How a page is called in the tests' output."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent not in DROPIN and blocks(page)], ids=name_of)
@pytest.mark.slow
def test_what_a_page_says_works(page: Path, reader: Reader) -> None:
    """Every program runs, and every command prints what is shown."""
    for block in blocks(page):
        if block.file:
            reader.write(block.file, block.text)
        elif block.kind == "python":
            reader.python(block.text)
        elif block.kind == "console":
            reader.console(block.text)


def test_every_test_file_that_is_named_exists() -> None:
    """The table of what works across processes names one for each row."""
    text = (DOCS / "reference" / "features.md").read_text("utf-8")
    table = [line for line in text.split("\n") if line.startswith("| ")][1:]
    named = [re.search(r"`(test_\w+\.py)` \|$", line) for line in table]

    assert len(table) > 15
    assert all(one and (ROOT / "tests" / one[1]).is_file() for one in named)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links lead to files, and their anchors to headings."""
    in_a_checkout = (ROOT / "sqlmetrics").is_dir()
    for link in _LINK.findall(page.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if in_a_checkout or DOCS in target.parents:
            assert target.exists(), f"{link}: there is no {target}"
        if anchor:
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent in DROPIN], ids=name_of)
def test_a_page_tells_to_install_what_its_examples_need(page: Path) -> None:
    """What they import, and what their commands start, unless another package on that list brings it."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    told = {
        name
        for line in prose.split("\n")
        if "nstall" in line
        for name in re.findall(r"`([\w-]+)(?:\[[\w,]+\])?`", line)
    }
    told |= {extra for extras in re.findall(r"nstall.*\[([\w,]+)\]", prose) for extra in extras.split(",")}
    brought = {name for one in told for name in _BRINGS.get(one, ())}

    assert "sqlmetrics" in told
    assert needed(page) - told - brought == set()


_BRINGS = {
    "django-prometheus": ["django"],
    "fastapi": ["starlette"],
    "flask": ["werkzeug"],
    "opentelemetry-distro": ["opentelemetry"],
    "opentelemetry-sdk-extension-prometheus-multiprocess": ["opentelemetry"],
    "prometheus-flask-exporter": ["flask"],
    "rq": ["redis"],
    "starlette-exporter": ["starlette"],
}
_PROGRAMS = re.compile(r"\b(celery|dramatiq|granian|gunicorn|hypercorn|rq|uvicorn|uwsgi) ")
_WORKERS = re.compile(r" -k (?:(gevent|tornado|trio|uvicorn_worker|aiohttp)\b|\S+)")


def needed(page: Path) -> set[str]:
    """The distributions that the examples of a page use."""
    found, own = set(), {"prometheus_client", "sqlmetrics"}
    for block in blocks(page):
        if block.kind == "python":
            own.add(Path(block.file or "").stem)
            for node in ast.walk(ast.parse(block.text)):
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found |= {name.partition(".")[0] for name in names}
        elif block.kind == "console":
            found |= {*_PROGRAMS.findall(block.text), *_WORKERS.findall(block.text)} - {""}
    return {name.replace("_", "-") for name in found - own - sys.stdlib_module_names}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_module_that_the_design_names_is_there() -> None:
    """With what it is to have in it: `client/operations.labels`, say."""
    page = (DOCS / "design.md").read_text("utf-8")
    named = set(re.findall(r"`((?:process|cells|rows|scrape|store|client)/\w+)(?:\.py)?(?:\.(\w+))?(?:\.(\w+))?", page))
    modules = {module: ROOT / "sqlmetrics" / f"{module}.py" for module, *_ in named}
    missing = [
        (module, name)
        for module, *names in named
        if (path := modules[module]).is_file()
        for name in names
        if name not in path.read_text("utf-8")
    ]

    assert len(modules) > 20
    assert [module for module, path in modules.items() if not path.is_file()] == []
    assert missing == []


def test_every_page_is_in_the_index() -> None:
    """Nobody has to look through the folders."""
    index = (DOCS / "README.md").read_text("utf-8")

    assert [page for page in PAGES[1:] if page.name != "README.md" and f"({page.relative_to(DOCS)})" not in index] == []


def test_every_public_name_is_described() -> None:
    """The page about the API knows all of `sqlmetrics.__all__`."""
    page = (DOCS / "reference" / "api.md").read_text("utf-8")

    assert [name for name in sqlmetrics.__all__ if f"`{name}" not in page] == []


def test_every_setting_is_described() -> None:
    """With its keyword and its variable."""
    page = (DOCS / "reference" / "settings.md").read_text("utf-8")
    names = [field.name for field in dataclasses.fields(config.Settings)]

    assert [name for name in names if f"| `{name}` | `SQLMETRICS_{name.upper()}` |" not in page] == []
    assert [name for name in config.PATH_VARIABLES if f"`{name}`" not in page] == []


def test_every_error_is_described() -> None:
    """The tree in the docs is that in the code, and each error says what to do."""
    page = (DOCS / "reference" / "errors.md").read_text("utf-8")
    tree = [line.split("──")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line]

    assert [name for name in tree if not re.search(rf"── {name} .*| `{name}` \|", page)] == []
    assert [name for name in tree if name not in sqlmetrics.__all__] == []


@pytest.mark.parametrize("view", ["samples", "metrics", "processes"])
def test_every_column_of_a_view_is_described(view: str, store: sqlmetrics.Store, shell) -> None:
    """In the view's own table, in the view's order."""
    page = (DOCS / "reference" / "store.md").read_text("utf-8")
    section = page.partition(f"\n### {view}\n")[2].partition("\n#")[0]
    described = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)

    assert described == [row["name"] for row in shell(f"SELECT name FROM pragma_table_info('{view}')")]


def cli_page() -> str:
    """The page about the command line, with the help texts of this moment."""
    intro = CLI_PAGE.read_text("utf-8").partition("\n## ")[0].rstrip()
    texts = [f"## {title}\n\n```text\n{text}```" for title, text in help_texts()]
    return "\n\n".join([intro, *texts]) + "\n"


def help_texts() -> Iterator[tuple[str, str]]:
    """(command, what its --help prints) of the program and of each of its commands."""
    nested = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for command in ([], *([name] for action in nested for name in action.choices)):
        done = subprocess.run(
            [sys.executable, "-m", "sqlmetrics", *command, "--help"],
            env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        yield " ".join(["sqlmetrics", *command]), done.stdout


@pytest.mark.slow
def test_the_page_about_the_command_line_is_up_to_date() -> None:
    """Otherwise run ``python tests/test_docs.py``."""
    assert words(CLI_PAGE.read_text("utf-8")) == words(cli_page())


def words(text: str) -> list[str]:
    """Of help texts: Pythons differ in where they break lines, and since 3.13 in ``-o, --output FILE``."""
    return re.sub(r"(-\w) [A-Z]+, --", r"\1, --", text).split()


if __name__ == "__main__":
    CLI_PAGE.write_text(cli_page(), "utf-8")
