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
_HOOKS = "[hook.load()() for hook in importlib.metadata.entry_points(group='opentelemetry_pre_instrument')]"


def test_a_package_that_was_imported_by_a_pth_file_is_switched_late(folder: Path, path: str) -> None:
    """`.pth` files run before any sitecustomize."""
    write(folder, "early.pth", "import prometheus_client")
    program = "from prometheus_client import values; print(values.ValueClass.__module__)"
    site = f"import site; site.addsitedir({str(folder)!r}); import sitecustomize; {program}"
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


def test_a_launcher_that_lets_no_other_run_calls_ours_by_its_entry_point(folder: Path, path: str) -> None:
    """As `opentelemetry-instrument` inside of this one; ours is in front again for what the program starts."""
    write(folder, "sitecustomize.py", f"import importlib.metadata; print('the other one', flush=True); {_HOOKS}")
    program = write(folder, "program.py", f"{textwrap.dedent(COUNT)}\n{_CHILD}")
    done = run("sh", "-c", f"PYTHONPATH={folder}:$PYTHONPATH {sys.executable} {program}", path=path)

    assert (done.stdout, done.stderr) == ("the other one\n" * 2, "")
    assert jobs(path) == {"it": 1, "child": 1}


def test_the_entry_point_does_nothing_without_the_launcher() -> None:
    """OpenTelemetry imports it in every Python of an environment where this package is installed."""
    loaded = "sorted({'sqlmetrics', 'prometheus_client', 'apsw', 'ssl'} & set(sys.modules))"
    program = f"import importlib.metadata, sys; print(len({_HOOKS}), {loaded}, len(sys.meta_path) - before)"
    command = [sys.executable, "-c", f"import sys; before = len(sys.meta_path); {program}"]

    assert subprocess.run(command, capture_output=True, text=True).stdout == "1 [] 0\n"


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
