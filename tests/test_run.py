"""`sqlmetrics run`: the store is active in every Python below it, and the command is as if it were started alone."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import scrape, wait_for

import sqlmetrics
from sqlmetrics.cells import layout, locks

_SQLMETRICS = [sys.executable, "-m", "sqlmetrics"]
_COUNT = """
    import sys
    from prometheus_client import Counter
    JOBS = Counter("jobs", "Jobs done", ["by"])
    JOBS.labels(sys.argv[1] if len(sys.argv) > 1 else "it").inc()
"""


def run(*command: str, path: str | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    """`sqlmetrics run` to its end."""
    return subprocess.run(launched(*command, path=path), capture_output=True, text=True, timeout=60, **options)


def launched(*command: str, path: str | None) -> list[str]:
    """The command line of `sqlmetrics run`."""
    return [*_SQLMETRICS, "run", *(["--path", path] if path else []), "--", *command]


def jobs(path: str) -> dict[str, float]:
    """What was counted, by label."""
    return {dict(labels)["by"]: count for (name, labels), count in scrape(path).items() if name == "jobs_total"}


@pytest.fixture
def script(folder: Path) -> Path:
    """A program that counts one job under the name given, and has `prometheus_client` only."""
    return write(folder, "script.py", _COUNT)


def write(folder: Path, name: str, text: str) -> Path:
    """A file in a folder."""
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file


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
    child = "if len(sys.argv) < 2: import subprocess; subprocess.run([sys.executable, __file__, 'child'], check=True)"
    program = write(folder, "program.py", f"{textwrap.dedent(_COUNT)}\n{child}")
    done = run(sys.executable, str(program), path=path, env=os.environ | {"PYTHONPATH": str(folder)})

    assert (done.stdout, done.stderr) == ("the other one\n" * 3, "")  # in the launcher, too
    assert jobs(path) == {"it": 1, "child": 1}


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


# --- the command is as if it were started alone ------------------------------------------------------------


def test_streams_and_status_are_the_commands_own(path: str) -> None:
    """Byte for byte, as the command takes the launcher's place."""
    done = run("sh", "-c", "cat; echo trouble >&2; exit 7", path=path, input="in\nput")

    assert (done.stdout, done.stderr, done.returncode) == ("in\nput", "trouble\n", 7)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGINT])
def test_signals_reach_the_command(path: str, number: signal.Signals) -> None:
    """It has the launcher's pid, and the signal's usual effect."""
    program = f"trap 'echo got {number}; exit 3' {number.value}; echo $$; while :; do sleep 0.01; done"
    command = launched("sh", "-c", program, path=path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(number)
        try:
            assert process.communicate(timeout=20) == (f"got {number}\n", None)
        finally:
            process.kill()
        assert process.returncode == 3


def test_a_launcher_that_is_interrupted_ends_without_a_traceback(folder: Path, path: str) -> None:
    """It waits for the lock of the folder when Ctrl-C comes."""
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with subprocess.Popen(launched("true", path=path), stderr=subprocess.PIPE) as process:
            waiting = re.compile(rf"-> FLOCK .* {process.pid} ")
            wait_for(lambda: waiting.search(Path("/proc/locks").read_text()))
            process.send_signal(signal.SIGINT)
            try:
                assert process.communicate(timeout=20) == (None, b"")
            finally:
                process.kill()
            assert process.returncode == -signal.SIGINT
    finally:
        os.close(held)


def test_a_killed_command_looks_killed(path: str) -> None:
    """The status is that of a process that a signal has ended, which supervisors look at."""
    assert run("sh", "-c", "kill -KILL $$", path=path).returncode == -signal.SIGKILL


def test_a_closed_pipe_ends_the_command(path: str) -> None:
    """Python ignores SIGPIPE; a command that inherits that would complain instead of ending."""
    assert run("sh", "-c", "kill -PIPE $$; echo still here", path=path).returncode == -signal.SIGPIPE


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_keep_nothing_from_starting(path: str, script: Path, closed: str) -> None:
    """As some init scripts and cron leave them."""
    command = shlex.join(launched(sys.executable, str(script), path=path))

    assert subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, timeout=60).returncode == 0
    assert jobs(path) == {"it": 1}


def test_an_inherited_socket_is_still_there(path: str) -> None:
    """As socket activation hands it over."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket; print(socket.socket(fileno={server.fileno()}).getsockname()[1])"
        done = run(sys.executable, "-c", program, path=path, pass_fds=[server.fileno()])

        assert done.stdout.strip() == str(server.getsockname()[1])


# --- when the store is emptied -----------------------------------------------------------------------------


def test_each_run_begins_at_zero(path: str, script: Path) -> None:
    """As with the peer's directory that is wiped."""
    for name in ("first", "second"):
        assert run(sys.executable, str(script), name, path=path).returncode == 0
        assert jobs(path) == {name: 1}


def test_persist_keeps_the_sums(path: str, script: Path) -> None:
    """By the setting that gunicorn's hook obeys, too."""
    for _ in range(2):
        run(sys.executable, str(script), path=path, env=os.environ | {"SQLMETRICS_PERSIST": "1"})

    assert jobs(path) == {"it": 2}


def test_jobs_of_one_run_that_follow_one_another_add_up(path: str, script: Path) -> None:
    """Also where a script of the run uses the launcher again, and no process lives in between."""
    again = shlex.join(launched(sys.executable, str(script), "again", path=path))
    assert run("sh", "-c", f"{sys.executable} {script} first; {again}; {again}", path=path).returncode == 0

    assert jobs(path) == {"first": 1, "again": 2}


def test_a_second_run_empties_nothing_while_the_first_goes_on(path: str, script: Path) -> None:
    """Even if none of its processes has counted, or lives that did: the launcher's lock goes on through exec."""
    program = f"{sys.executable} {script} first; echo counted; read line"
    command = launched("sh", "-c", program, path=path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "counted\n"
        run(sys.executable, str(script), "second", path=path)
        assert jobs(path) == {"first": 1, "second": 1}
        first.stdin.close()
        first.wait(10)

    run(sys.executable, str(script), "third", path=path)
    assert jobs(path) == {"third": 1}


def test_a_second_run_waits_while_another_empties_the_store(path: str, script: Path) -> None:
    """As long as a large store takes; then it is a run of its own, whose lock goes on."""
    run(sys.executable, str(script), path=path)
    command = launched("sh", "-c", "echo started; read line", path=path)
    with open(path + "-cells", "r+b") as emptied:
        assert locks.try_lock(emptied.fileno(), layout.RUN_LOCK_AT)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            waiting = select.poll()  # not select(), which knows descriptors below 1024 only
            waiting.register(second.stdout, select.POLLIN)
            assert waiting.poll(2500) == []
            locks.unlock(emptied.fileno(), layout.RUN_LOCK_AT)
            assert second.stdout.readline() == "started\n"
            assert locks.is_locked(emptied.fileno(), layout.RUN_LOCK_AT)


def test_a_daemon_that_the_command_left_behind_keeps_the_run_going(folder: Path, path: str, script: Path) -> None:
    """`gunicorn --daemon` and its like go on when the launched process has ended."""
    daemon = f"({sys.executable} {script} daemon; echo ready > {folder}/ready; exec sleep 60) >/dev/null 2>&1 & echo $!"
    pid = int(run("sh", "-c", daemon, path=path).stdout)
    try:
        wait_for((folder / "ready").exists)
        run(sys.executable, str(script), "second", path=path)
        assert jobs(path) == {"daemon": 1, "second": 1}
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_daemon_that_closes_what_it_inherits_keeps_the_run_going(folder: Path, path: str, script: Path) -> None:
    """As `celery --detach` does, and Celery's SIGHUP; the launcher's open file is one of those that it closes."""
    program = write(
        folder,
        "daemon.py",
        """
        import os, pathlib, signal
        os.closerange(3, 256)
        import prometheus_client
        pathlib.Path(__file__).with_name("ready").touch()
        signal.pause()
        """,
    )
    daemon = f"{sys.executable} {script} first; {sys.executable} {program} >/dev/null 2>&1 & echo $!"
    pid = int(run("sh", "-c", daemon, path=path).stdout)
    try:
        wait_for((folder / "ready").exists)
        run(sys.executable, str(script), "second", path=path)
        assert jobs(path) == {"first": 1, "second": 1}
    finally:
        os.kill(pid, signal.SIGKILL)


# --- what is wrong at the start ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["nosuchprogram"], 127, "nosuchprogram: no such command in PATH, and no such file"),
        (["/"], 126, "/ cannot be run: it is a folder, or not executable by this user"),
        ([], 2, "no command was given; for example: sqlmetrics run -- gunicorn -w 4 app:app"),
    ],
)
def test_a_command_that_cannot_run_is_told_and_empties_nothing(
    path: str, script: Path, command: list[str], status: int, said: str
) -> None:
    """With the status that a shell has for it."""
    run(sys.executable, str(script), path=path)
    done = run(*command, path=path)

    assert done.returncode == status
    assert said in done.stderr
    assert jobs(path) == {"it": 1}


def test_a_program_of_the_current_folder_is_named_with_the_folder(folder: Path, path: str) -> None:
    """As shells want it."""
    write(folder, "program", "#!/bin/sh").chmod(0o755)
    done = run("program", path=path, cwd=folder)

    assert (done.returncode, done.stdout) == (127, "")
    assert (
        done.stderr == "sqlmetrics: program: no such command in PATH; for the file of that name here write ./program\n"
    )
    assert run("./program", path=path, cwd=folder).returncode == 0


def test_a_file_that_is_no_program_is_told(folder: Path, path: str) -> None:
    """The kernel refuses what has neither a format that it knows nor a first line with an interpreter."""
    file = write(folder, "text", "no program")
    file.chmod(0o755)
    done = run(str(file), path=path)

    assert done.returncode == 126
    assert done.stderr == f"sqlmetrics: {file} cannot be run: Exec format error\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "no store was named"),
        ({"SQLMETRICS_PATH": "/nowhere/metrics.sqlite3"}, "does not exist; create it first"),
        ({"SQLMETRICS_PATH": "/tmp/sqlmetrics.sqlite3", "SQLMETRICS_KEEP_DEAD": "few"}, "SQLMETRICS_KEEP_DEAD='few'"),
    ],
)
def test_a_store_that_cannot_be_is_told_before_the_command_starts(environment: dict[str, str], said: str) -> None:
    """In one line, without a traceback."""
    done = run("echo", "started", env=os.environ | environment)

    assert (done.stdout, done.returncode) == ("", 1)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_variables_alone_do(path: str, script: Path) -> None:
    """What `sqlmetrics env` prints, evaluated by a shell: for units and containers that cannot have a launcher."""
    lines = subprocess.run([*_SQLMETRICS, "env", "--path", path], check=True, capture_output=True, text=True).stdout
    subprocess.run(["sh", "-c", f"{lines}\n{sys.executable} {script}"], check=True)
    subprocess.run(["sh", "-c", f"{lines}\n{lines}\n{sys.executable} {script}"], check=True)

    assert jobs(path) == {"it": 2}
