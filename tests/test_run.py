"""`sqlmetrics run`: the store is active in every Python below it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launching import SQLMETRICS, jobs, launched, run, write

pytestmark = [pytest.mark.promise(12), pytest.mark.slow]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_every_start_method_count(folder: Path, path: str, method: str) -> None:
    """The children of a forkserver are no children of the program, and those of spawn begin from nothing."""
    program = write(
        folder,
        "program.py",
        """
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        from prometheus_client import Counter

        JOBS = Counter("jobs", "Jobs done", ["by"])

        def work(name):
            JOBS.labels(name).inc()

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with context.Pool(2) as pool:
                pool.map(work, ["pool"] * 50)
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                list(pool.map(work, ["executor"] * 50))
            work("parent")
        """,
    )
    done = run(sys.executable, str(program), method, path=path)

    assert (done.returncode, done.stderr) == (0, "")
    assert jobs(path) == {"pool": 50, "executor": 50, "parent": 1}


def test_programs_below_programs_count(path: str, script: Path) -> None:
    """Below a shell, with a folder on PYTHONPATH that the user has put there."""
    nested = f"{sys.executable} {script} one; PYTHONPATH=$PYTHONPATH:/nowhere {sys.executable} {script} two"
    assert run("sh", "-c", nested, path=path).returncode == 0

    assert jobs(path) == {"one": 1, "two": 1}


@pytest.mark.promise(7)
def test_the_peers_variable_names_the_store_and_no_mmap_file_appears(folder: Path, path: str, script: Path) -> None:
    """`prometheus_client` chooses its mmap files when it is imported; the store is installed right after that."""
    done = run(sys.executable, str(script), env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)})

    assert (done.returncode, done.stderr) == (0, "")
    assert jobs(path) == {"it": 1}
    assert list(folder.glob("*.db")) == []


def test_what_comes_before_the_import_changes_nothing(path: str, script: Path) -> None:
    """A program that never counts loads nothing of what `prometheus_client` needs; gevent patches `ssl` first."""
    unwanted = {"sqlmetrics", "prometheus_client", "apsw", "ssl", "threading", "typing"}
    loaded = f"import sys; print(sorted({unwanted} & set(sys.modules)))"

    assert run(sys.executable, "-c", loaded, path=path).stdout == "[]\n"


@pytest.mark.parametrize(
    "statement", ["import prometheus_client.values", "from prometheus_client.metrics import Gauge"]
)
def test_any_import_of_the_client_installs(path: str, statement: str) -> None:
    """A module of the package can be the first that somebody asks for."""
    program = f"{statement}; from prometheus_client import Counter, values; print(values.ValueClass.__module__)"

    assert run(sys.executable, "-c", program, path=path).stdout == "sqlmetrics.values\n"


def test_another_module_of_this_name_stops_no_program(folder: Path, path: str) -> None:
    """The user's own file, beside the program that imports the client."""
    wrong = write(folder, "sqlmetrics.py", "")
    program = write(folder, "program.py", "import prometheus_client; print('goes on')")
    done = subprocess.run(launched(sys.executable, str(program), path=path), capture_output=True, text=True)

    assert (done.stdout, done.returncode) == ("goes on\n", 0)
    assert "counts in its own memory" in done.stderr
    assert str(wrong) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_without_this_package_is_named(folder: Path, path: str) -> None:
    """It counts in its own memory, which nobody would notice otherwise, and its program runs."""
    write(folder, "prometheus_client.py", "print('the client of another Python')")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "bare")], check=True)
    bare = str(folder / "bare/bin/python")
    program = "import prometheus_client; print('goes on')"
    done = run("sh", "-c", f'cd {folder}; PYTHONPATH=$PYTHONPATH:{folder} {bare} -c "{program}"', path=path)

    assert done.stdout == "the client of another Python\ngoes on\n"
    assert bare in done.stderr
    assert "counts in its own memory" in done.stderr
    assert "No module named 'sqlmetrics'" in done.stderr


def test_a_store_that_is_gone_for_a_child_stops_no_program(folder: Path, script: Path) -> None:
    """A cleaner that deletes the folder while the server goes on must not keep its next worker from starting."""
    below = folder / "below"
    below.mkdir()
    done = run("sh", "-c", f"rm -r {below}; {sys.executable} {script}", path=str(below / "metrics.sqlite3"))

    assert done.returncode == 0
    assert "counts in its own memory" in done.stderr
    assert str(below) in done.stderr


def test_the_variables_alone_switch_the_store_on(path: str, script: Path) -> None:
    """What `sqlmetrics env` prints, evaluated by a shell: for units and containers that cannot have a launcher."""
    lines = subprocess.run([*SQLMETRICS, "env", "--path", path], check=True, capture_output=True, text=True).stdout
    subprocess.run(["sh", "-c", f"{lines}\n{sys.executable} {script}"], check=True)
    subprocess.run(["sh", "-c", f"{lines}\n{lines}\n{sys.executable} {script}"], check=True)

    assert jobs(path) == {"it": 2}


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "sqlmetrics"],
        [sys.executable, "-W", "ignore", "-m", "sqlmetrics"],
        [os.path.join(os.path.dirname(sys.executable), "sqlmetrics")],
    ],
)
def test_a_command_that_looks_does_not_count_where_all_others_do(folder: Path, path: str, command: list[str]) -> None:
    """In a shell with the variables of `sqlmetrics env`, where every other Python makes the store and is in it."""
    told = subprocess.run([*SQLMETRICS, "env", "--path", path, "--format", "json"], check=True, capture_output=True)
    done = subprocess.run(
        [*command, "show"], env={**os.environ, **json.loads(told.stdout)}, capture_output=True, text=True
    )

    assert (done.returncode, "no store at" in done.stderr) == (2, True)
    assert os.listdir(folder) == []
