"""Two Python interpreters, or two copies of this package, in one process: right or refused, never silently wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import scrape

import sqlmetrics

pytestmark = [pytest.mark.promise(12), pytest.mark.slow]

_BEGIN = """
import os, subprocess, sys, textwrap, threading, _testcapi
STORE = {store!r}

def interpreter(code):
    path = f"import sys; sys.path[:] = {{sys.path!r}}; STORE = {{STORE!r}}\\n"
    assert _testcapi.run_in_subinterp(path + SAYING + textwrap.dedent(code)) == 0

SAYING = '''
import os
def say(text):  # a line in one write: others write to the same stream
    os.write(1, (text + os.linesep).encode())
def saying(action, *arguments):
    try:
        say(action.__name__ + " went on")
        return action(*arguments)
    except Exception as error:
        say(type(error).__name__ + " " + str(error))
'''
exec(SAYING)

def scraped():
    code = f"import sqlmetrics; print(sqlmetrics.generate_latest({{STORE!r}}).decode())"
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    print(*(line for line in lines if line and line[0] != "#"), sep="; ", flush=True)
"""
_COUNT = """
import sqlmetrics, prometheus_client
store = sqlmetrics.install(STORE)
prometheus_client.Counter("jobs", "Jobs").inc()
prometheus_client.Gauge("workers", "Workers", multiprocess_mode="livesum").set(1)
"""


def run(program: str, path: str) -> list[str]:
    """What a program says that may start interpreters; it ends well and complains of nothing."""
    whole = f"{_BEGIN.format(store=path)}\nCOUNT = {_COUNT!r}\n{program}"
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def refusals(lines: list[str]) -> list[str]:
    """Those lines that say which interpreter is refused, and what to do about it."""
    way_out = "WSGIApplicationGroup %{GLOBAL}"
    return [line for line in lines if line.startswith("InstallError") and way_out in line]


def test_a_second_interpreter_is_refused_and_the_first_goes_on(path: str) -> None:
    """As mod_wsgi has one for each app: counts of both would get lost, and live gauges vanish."""
    program = """
exec(COUNT)
interpreter("import sqlmetrics; saying(sqlmetrics.install, STORE); saying(sqlmetrics.install, STORE)")
scraped()
"""
    lines = run(program, path)

    assert len(refusals(lines)) == 2  # as often as it is tried
    assert lines[-1] == "jobs_total 1.0; workers 1.0"
    assert scrape(path) == {("jobs_total", ()): 1}


def test_a_second_interpreter_that_only_reads_is_refused(path: str) -> None:
    """It would take the first one for dead, and settle it."""
    program = """
exec(COUNT)
interpreter('''
import sqlmetrics, prometheus_client
saying(sqlmetrics.generate_latest, STORE)
saying(sqlmetrics.mark_process_dead, "1", STORE)
saying(sqlmetrics.reset, STORE)
registry = prometheus_client.CollectorRegistry()
sqlmetrics.MultiProcessCollector(registry, STORE)
saying(prometheus_client.generate_latest, registry)
''')
scraped()
"""
    lines = run(program, path)

    assert len(refusals(lines)) == 4
    assert lines[-1] == "jobs_total 1.0; workers 1.0"


def test_an_interpreter_that_has_read_keeps_a_second_one_from_counting(path: str) -> None:
    """What the first one reads later would be wrong."""
    setup = f"import sqlmetrics; sqlmetrics.install({path!r}).flush()"
    subprocess.run([sys.executable, "-c", setup], check=True)
    program = """
import sqlmetrics
sqlmetrics.generate_latest(STORE)
interpreter("import sqlmetrics; saying(sqlmetrics.install, STORE)")
"""
    assert len(refusals(run(program, path))) == 1


def test_of_interpreters_that_start_at_once_one_has_the_store(path: str) -> None:
    """Whichever is the first."""
    program = """
tried, ended, refused = os.pipe(), os.pipe(), os.pipe()
code = '''
import os
wait = refused
def install():
    global wait
    exec(COUNT)
    wait = ended
saying(install)
os.write(tried, b".")
os.read(wait, 1)
'''
given = f"COUNT, tried, ended, refused = {COUNT!r}, {tried[1]}, {ended[0]}, {refused[0]}"
threads = [threading.Thread(target=interpreter, args=(given + code,)) for _ in range(3)]
[thread.start() for thread in threads]
[os.read(tried[0], 1) for thread in threads]
os.write(ended[1], b".")  # apsw opens no connection in others when the interpreter has ended that loaded it first
while all(thread.is_alive() for thread in threads):
    os.sched_yield()
os.write(refused[1], b"..")
[thread.join() for thread in threads]
"""
    assert len(refusals(run(program, path))) == 2
    assert scrape(path) == {("jobs_total", ()): 1}


def test_interpreters_with_a_store_each_go_on_side_by_side(folder: Path) -> None:
    """It is one file that they cannot share."""
    program = """
exec(COUNT)
FIRST, STORE = STORE, STORE + "2"
interpreter("exec(" + repr(COUNT) + ")")
scraped()
STORE = FIRST
scraped()
"""
    assert run(program, str(folder / "one.sqlite3")) == ["jobs_total 1.0", "jobs_total 1.0; workers 1.0"]


def test_an_interpreter_scrapes_removes_and_ends_in_a_thread_that_another_has_begun(path: str) -> None:
    """As in mod_wsgi: before Python 3.12, C code in such a thread finds the other interpreter when it calls Python."""
    program = """
interpreter("exec(" + repr(COUNT) + ")" + '''
orders = prometheus_client.Counter("orders", "Orders", ["path"])
for number in range(150):  # more statements than apsw keeps
    orders.labels(str(number)).inc()
    text = sqlmetrics.generate_latest(STORE).decode()
    assert text.count("orders_total{") == number + 1
    if number % 10 == 0:
        store.flush()
orders.remove("0")
text = sqlmetrics.generate_latest(STORE).decode()
say(str(text.count("orders_total{")) + " " + str("workers 1.0" in text.splitlines()))
''')
"""
    assert run(program, path) == ["149 True"]
    values = scrape(path)
    assert (values["jobs_total", ()], values["orders_total", (("path", "149"),)]) == (1, 1)


def test_interpreters_one_after_the_other_count_on(path: str) -> None:
    """A program that ends Python and begins it again: what the old one had open is closed, and it is dead."""
    program = """
for _ in range(3):
    interpreter("exec(" + repr(COUNT) + ")")
scraped()
exec(COUNT)
scraped()
"""
    assert run(program, path) == ["jobs_total 3.0", "jobs_total 4.0; workers 1.0"]


_ANEW = """
def import_anew():
    for name in [name for name in sys.modules if name.partition(".")[0] == "sqlmetrics"]:
        del sys.modules[name]
    import sqlmetrics
    return sqlmetrics
"""


def test_a_package_that_is_imported_anew_while_it_is_installed_is_refused(path: str) -> None:
    """The old one goes on: a second one would replace what it has replaced."""
    program = """
exec(COUNT)
saying(import_anew().install, STORE)
jobs = prometheus_client.REGISTRY._names_to_collectors["jobs"]
jobs.inc()
scraped()
"""
    lines = run(_ANEW + program, path)

    assert lines[1].startswith("InstallError another copy of sqlmetrics (from ")
    assert "call its uninstall() before" in lines[1]
    assert lines[2] == "jobs_total 2.0; workers 1.0"


def test_a_package_that_is_imported_anew_reads_what_the_old_one_counts(path: str) -> None:
    """It knows the slots of the other by the table of mapped files, and does not take it for dead."""
    program = """
exec(COUNT)
anew = import_anew()
for _ in range(3):
    text = anew.generate_latest(STORE).decode()
anew.mark_process_dead("1", STORE)
print("workers 1.0" in text.splitlines(), "jobs_total 1.0" in text.splitlines())
prometheus_client.Counter("more", "More").inc()
scraped()
"""
    lines = run(_ANEW + program, path)

    assert lines == ["True True", "jobs_total 1.0; workers 1.0; more_total 1.0"]


def test_a_package_that_is_imported_anew_after_uninstall_counts_on(path: str) -> None:
    """As test suites do that want a clean one."""
    program = """
import prometheus_client
for number in range(3):
    anew = import_anew()
    anew.install(STORE)
    jobs = prometheus_client.Counter(f"jobs_{number}", "Jobs")
    jobs.inc()
    prometheus_client.REGISTRY.unregister(jobs)
    del jobs
    anew.uninstall()
scraped()
"""
    assert run(_ANEW + program, path) == ["jobs_0_total 1.0; jobs_1_total 1.0; jobs_2_total 1.0"]


def vendored(folder: Path) -> str:
    """The beginning of a program that has another copy of the package, as a wheel has it, called `vendored`."""
    package = Path(sqlmetrics.__file__).parent
    shutil.copytree(package, folder / "vendored")
    if not (package / "migrations").exists():
        shutil.copytree(package.parent / "migrations", folder / "vendored/migrations")
    return f"sys.path.insert(0, {str(folder)!r})\n"


def test_a_copy_under_another_name_is_refused_and_then_installed(folder: Path, path: str) -> None:
    """As a library has that brings its own; what is refused leaves nothing behind."""
    program = """
import vendored
vendored.install  # the first use of a name loads the rest
exec(COUNT)
saying(vendored.install, STORE)
saying(vendored.install, STORE + "2")
print(os.path.exists(STORE + "2"))
sqlmetrics.uninstall()
vendored.install(STORE)
prometheus_client.Counter("more", "More").inc()
scraped()
"""
    lines = run(vendored(folder) + program, path)

    assert [line.split()[0] for line in lines[:-1]] == ["install", "InstallError"] * 2 + ["False"]
    assert "more_total 1.0" in lines[-1]


def test_a_copy_that_is_loaded_when_another_is_installed_stays_refused(folder: Path, path: str) -> None:
    """What it takes for prometheus_client's own names are the other's."""
    program = """
exec(COUNT)
import vendored
vendored.install
sqlmetrics.uninstall()
saying(vendored.install, STORE)
"""
    (_, line) = run(vendored(folder) + program, path)

    assert line.startswith("InstallError another copy of sqlmetrics (from there before)")


@pytest.mark.parametrize(
    "name", ["", ".multiprocess", ".values", ".store.installed", ".client.patch", ".cells.cellsfile"]
)
def test_a_module_that_is_reloaded_is_right_or_refused(name: str, path: str) -> None:
    """`importlib.reload()`, as interactive shells do it, and an install() after it."""
    program = f"""
import importlib
exec(COUNT)
import sqlmetrics.multiprocess
importlib.reload(sys.modules["sqlmetrics{name}"])
saying(sqlmetrics.install, STORE)
prometheus_client.REGISTRY._names_to_collectors["jobs"].inc()
prometheus_client.Counter("more", "More").inc()
print("workers 1.0" in sqlmetrics.generate_latest(STORE).decode().splitlines())
scraped()
"""
    lines = run(program, path)

    assert lines[0] == "install went on"
    assert len(lines) == 3 or lines[1].startswith("InstallError another copy of sqlmetrics (from ")
    assert lines[-2:] == ["True", "jobs_total 2.0; workers 1.0; more_total 1.0"]


_HANDED_ON = """
import os
for fd in os.listdir("/proc/self/fd"):
    if os.path.exists(name := f"/proc/self/fd/{fd}") and os.readlink(name).endswith("-cells"):
        print(os.get_inheritable(int(fd)))
"""


def test_a_launcher_s_descriptor_is_not_taken_for_an_interpreter_s(path: str) -> None:
    """`sqlmetrics run` hands one on, so that the run lasts as long as the command."""
    code = f"{_HANDED_ON}\nSTORE = {path!r}\n{_COUNT}"
    command = [sys.executable, "-m", "sqlmetrics", "run", "--path", path, "--", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("True\n", "")
    assert scrape(path) == {("jobs_total", ()): 1}
