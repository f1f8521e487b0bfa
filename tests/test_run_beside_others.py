"""`sqlmetrics run` with others that have a `sitecustomize`, a `.pth` file or a PYTHONPATH of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from launching import COUNT, jobs, run, write

import sqlmetrics

pytestmark = [pytest.mark.promise(12), pytest.mark.slow]

_CHILD = "if len(sys.argv) < 2: import subprocess; subprocess.run([sys.executable, __file__, 'child'], check=True)"
_INC = 'Counter("jobs", "Jobs done", ["by"]).labels(by).inc()'


def test_a_package_that_was_imported_by_a_pth_file_is_switched_late(folder: Path, path: str) -> None:
    """`.pth` files run before any sitecustomize."""
    write(folder, "early.pth", "import prometheus_client")
    program = "from prometheus_client import values; print(values.ValueClass.__module__)"
    site = f"import site; site.addsitedir({str(folder)!r}); site.execsitecustomize(); {program}"
    environment = os.environ | {
        "SQLMETRICS_PATH": path,
        "PYTHONPATH": os.path.join(os.path.dirname(sqlmetrics.__file__), "bootstrap"),
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}; {site}"],
        env=environment,
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.stderr) == ("sqlmetrics.values\n", "")


def test_the_sitecustomize_that_is_hidden_runs_too(folder: Path, path: str, script: Path) -> None:
    """The system's Python has one, and so have other launchers."""
    write(folder, "sitecustomize.py", "print('the other one')")
    done = run("sh", "-c", f"PYTHONPATH=$PYTHONPATH:{folder} {sys.executable} {script}", path=path)

    assert done.stdout == "the other one\n"
    assert jobs(path) == {"it": 1}


def test_another_launcher_around_this_one_does_not_keep_children_from_it(folder: Path, path: str) -> None:
    """As `opentelemetry-instrument`: its sitecustomize puts itself in front for children, and runs no other."""
    first = f"os.environ['PYTHONPATH'] = {str(folder)!r} + ':' + os.environ['PYTHONPATH']"
    write(folder, "sitecustomize.py", f"import os; print('the other one', flush=True); {first}")
    program = write(folder, "program.py", f"{textwrap.dedent(COUNT)}\n{_CHILD}")
    done = run(sys.executable, str(program), path=path, env=os.environ | {"PYTHONPATH": str(folder)})

    assert (done.stdout, done.stderr) == ("the other one\n" * 3, "")  # in the launcher, too
    assert jobs(path) == {"it": 1, "child": 1}


_HIDDEN = {
    "the package": COUNT,
    "a module of it": COUNT.replace("from prometheus_client import", "from prometheus_client.metrics import"),
    "sqlmetrics": f"\n    import sqlmetrics\n    sqlmetrics.install(){COUNT}",
    "sqlmetrics, late": f"{COUNT}    import sqlmetrics\n    assert sqlmetrics.generate_latest()",
    "several threads at once": f"""
    import threading
    gate = threading.Barrier(8)
    def act(name):
        gate.wait()
        __import__(name)
    threads = [threading.Thread(target=act, args=[name]) for name in ("sqlmetrics", "prometheus_client") * 4]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    {COUNT}""",
    "an import that fails at first": f"""
    import sys
    sys.modules["wsgiref.simple_server"] = None
    for name in ("prometheus_client", "prometheus_client.core"):
        try: __import__(name)
        except ImportError: pass
        else: raise SystemExit("it did not fail")
    del sys.modules["wsgiref.simple_server"]
    {COUNT}""",
}
"""What is imported first where our sitecustomize has not run."""


@pytest.mark.parametrize(
    ("first", "pythonpath"),
    [
        *((first, "{other}:$PYTHONPATH") for first in _HIDDEN),
        ("the package", "{other}:$PYTHONPATH/"),
        ("the package", "{other}::$PYTHONPATH:{other}"),
    ],
)
def test_a_launcher_whose_sitecustomize_runs_no_other_one_does_not_keep_ours_away(
    first: str, pythonpath: str, folder: Path, path: str
) -> None:
    """As `elasticapm-run` inside of this one; ours is in front again for what the program starts."""
    (folder / "other").mkdir()
    write(folder / "other", "sitecustomize.py", "print('the other one', flush=True)")
    program = write(folder, "program.py", f"{textwrap.dedent(_HIDDEN[first])}\n{_CHILD}")
    changed = pythonpath.format(other=folder / "other")
    done = run("sh", "-c", f"PYTHONPATH={changed} {sys.executable} {program}", path=path, cwd=folder)

    assert (done.stdout, done.stderr) == ("the other one\n" * 2, "")
    assert jobs(path) == {"it": 1, "child": 1}


def test_children_of_a_python_whose_sitecustomize_was_hidden_count(folder: Path, path: str) -> None:
    """Forked before the first import, spawned with the parent's `sys.path`, and started as a program."""
    (folder / "other").mkdir()
    write(folder / "other", "sitecustomize.py", "")
    counting = f"def count(by):\n    from prometheus_client import Counter\n    {_INC}\n"
    methods = """
if __name__ == "__main__":
    import multiprocessing
    for method in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=count, args=[method])
        child.start()
        child.join()
"""
    program = write(folder, "program.py", counting + methods)
    done = run("sh", "-c", f"PYTHONPATH={folder}/other:$PYTHONPATH {sys.executable} {program}", path=path)

    assert (done.stdout, done.stderr) == ("", "")
    assert jobs(path) == {"fork": 1, "spawn": 1, "forkserver": 1}


def test_our_command_runs_where_our_sitecustomize_is_hidden(folder: Path, path: str) -> None:
    """As a module of that name is found before the package; it looks, and is no process of the store."""
    (folder / "other").mkdir()
    write(folder / "other", "sitecustomize.py", "")
    program = write(folder, "program.py", COUNT)
    show = f"{sys.executable} -m sqlmetrics show --path {path} jobs"
    commands = f"PYTHONPATH={folder}/other:$PYTHONPATH; {sys.executable} {program} && {show}"
    done = run("sh", "-c", commands, path=path)

    assert done.stderr == ""
    assert "jobs_total" in done.stdout


def test_a_package_that_a_pth_file_imported_is_switched_where_our_sitecustomize_is_hidden(
    folder: Path, path: str
) -> None:
    """By the import of this package; before that, nothing leads to it."""
    (folder / "other").mkdir()
    write(folder / "other", "sitecustomize.py", "")
    write(folder, "early.pth", "import prometheus_client")
    asked = "from prometheus_client import values; import sqlmetrics; print(values.ValueClass.__module__)"
    copies = "print(sqlmetrics is sys.modules['sqlmetrics'], len(sqlmetrics.__path__))"
    program = f"import site, sys; site.addsitedir({str(folder)!r}); {asked}; {copies}"
    command = ["sh", "-c", f'PYTHONPATH={folder}/other:$PYTHONPATH exec {sys.executable} -c "{program}"']
    done = run(*command, path=path)

    assert (done.stdout, done.stderr) == ("sqlmetrics.values\nTrue 1\n", "")


def test_the_current_folder_on_pythonpath_stays_there(folder: Path, path: str) -> None:
    """An empty part of PYTHONPATH means it, as `PYTHONPATH=$PYTHONPATH:src` has where nothing was set before."""
    write(folder, "beside.py", "print('found')")
    (folder / "below").mkdir()
    program = write(folder, "below/program.py", "import beside")
    done = run(sys.executable, str(program), path=path, cwd=folder, env=os.environ | {"PYTHONPATH": ":/nowhere"})

    assert (done.stdout, done.stderr) == ("found\n", "")


def test_a_folder_that_pythonpath_cannot_name_is_refused(folder: Path, path: str) -> None:
    """Otherwise no Python would find what installs the store there, and nobody would notice."""
    (folder / "co:lon").mkdir()
    shutil.copytree(os.path.dirname(sqlmetrics.__file__), folder / "co:lon/sqlmetrics")
    command = [sys.executable, "-m", "sqlmetrics", "run", "--path", path, "--", "echo", "started"]
    done = subprocess.run(command, cwd=folder / "co:lon", capture_output=True, text=True)

    assert (done.stdout, done.returncode) == ("", 1)
    assert "PYTHONPATH cannot name a folder with ':' in it" in done.stderr
    assert done.stderr.count("\n") == 1
