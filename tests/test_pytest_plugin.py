"""The pytest plugin, in test runs of its own: an empty store or registry for a test, and nothing for all others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Shell
from launching import SQLMETRICS, write

APP = """
    from prometheus_client import Counter, Enum, Gauge, Histogram, Info

    JOBS = Counter("jobs", "Jobs done")
    BY = Counter("by", "Jobs by kind", ["kind"])
    HELD = BY.labels("held")
    LIMIT = Gauge("limit", "Jobs at once", multiprocess_mode="livemax")
    LIMIT.set(7)
    SECONDS = Histogram("seconds", "Their time")
    BUILD = Info("build", "The version")
    BUILD.info({"version": "1"})
    MOOD = Enum("mood", "The mood", states=["calm", "busy"])

    def work():
        JOBS.inc()
        HELD.inc()
        LIMIT.set(9)
        SECONDS.observe(1)
        BUILD.info({"version": "2"})
        MOOD.state("busy")

    def shown(value):
        kind = {"kind": "held"}
        states = value("build_info", {"version": "1"}), value("mood", {"mood": "calm"})
        return [value("jobs_total"), value("by_total", kind) or 0, value("limit"), value("seconds_count"), *states]
"""
USES = """
    import unittest
    import pytest
    from app import shown, work
    from prometheus_client import REGISTRY

    @pytest.mark.parametrize("number", range(3))
    def test_store(sqlmetrics_store, number):
        assert shown(sqlmetrics_store.get_sample_value) == [0, 0, 0, 0, 1, 1]
        assert shown(REGISTRY.get_sample_value) == [0, 0, 0, 0, 1, 1]
        work()
        assert shown(sqlmetrics_store.get_sample_value) == [1, 1, 9, 1, None, 0]
        assert shown(REGISTRY.get_sample_value) == [1, 1, 9, 1, None, 0]

    @pytest.mark.usefixtures("sqlmetrics_store")
    class TestOfUnittest(unittest.TestCase):
        def test_one(self):
            work()
            assert REGISTRY.get_sample_value("jobs_total") == 1

        test_two = test_one
"""
PLAIN = """
    import os
    import pytest
    from app import BY, JOBS, shown, work
    from prometheus_client import REGISTRY

    @pytest.mark.parametrize("number", range(2))
    def test_plain(number):
        assert shown(REGISTRY.get_sample_value) == [3, 2, 7, 0, 1, 1]
        assert type(JOBS._value).__name__ == "MutexValue"
        assert "SQLMETRICS_PATH" not in os.environ
"""
COUNTED = """
    from app import HELD, JOBS

    JOBS.inc(3)
    HELD.inc(2)
"""
INSTALLED = """
    import sys
    import sqlmetrics

    sqlmetrics.install(sys.argv[-1] if sys.argv[-1].endswith("sqlite3") else None)
"""


@pytest.fixture
def project(folder: Path) -> Path:
    """A folder with the app, and tests that use the fixture."""
    write(folder, "app.py", APP)
    write(folder, "test_uses.py", USES)
    return folder


def run(folder: Path, *arguments: str, under: list[str] = [], **variables: str) -> str:  # noqa: B006
    """What a test run in a folder prints, in which all tests pass."""
    done = attempt(folder, *arguments, under=under, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def attempt(folder: Path, *arguments: str, under: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """A test run in a folder, with its errors."""
    command = [
        *under,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-W",
        "error",
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": "", **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def passed(output: str) -> int:
    """How many tests have passed."""
    found = re.search(r"(\d+) passed", output)
    return int(found[1]) if found else 0


def test_a_run_that_asks_for_nothing_loads_nothing(folder: Path) -> None:
    """Only the plugin's own module is there, also under the launcher."""
    write(
        folder,
        "test_nothing.py",
        """
        import sys

        def test_nothing():
            first = {name.partition(".")[0] for name in sys.modules}
            assert "sqlmetrics_pytest" in first
            assert first.isdisjoint({"sqlmetrics", "prometheus_client", "apsw"})
        """,
    )

    assert passed(run(folder)) == 1
    assert passed(run(folder, under=[*SQLMETRICS, "run", "--"], SQLMETRICS_PATH=str(folder / "m.sqlite3"))) == 1


def test_a_module_of_the_apps_own_that_is_called_sqlmetrics_is_no_trouble(folder: Path) -> None:
    """The plugin imports nothing of that name before a fixture does."""
    write(folder, "sqlmetrics.py", "raise RuntimeError('not wanted')\n")
    write(folder, "test_one.py", "def test_one():\n    pass\n")

    assert passed(run(folder)) == 1


def test_a_package_that_is_imported_before_pytest_begins_is_no_trouble(folder: Path) -> None:
    """Of an installed package with a plugin pytest rewrites assertions, and warns where it is too late for that."""
    installed = folder / "installed-1.dist-info"
    installed.mkdir()
    write(installed, "METADATA", "Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    write(installed, "entry_points.txt", "[pytest11]\nsqlmetrics = sqlmetrics_pytest\n")
    write(installed, "RECORD", "sqlmetrics/__init__.py,,\nsqlmetrics_pytest.py,,\n")
    write(folder, "test_one.py", "def test_one():\n    pass\n")
    program = "import sys, sqlmetrics, sqlmetrics.version, pytest; sys.exit(pytest.main())"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": "-W error -p no:cacheprovider"}

    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_can_be_left_out(project: Path) -> None:
    """By its name; then there is no such fixture. And it can be named where no plugin is loaded by itself."""
    done = attempt(project, "-p", "no:sqlmetrics", under=[])
    named = run(project, "-p", "sqlmetrics", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert done.returncode == 1
    assert "fixture 'sqlmetrics_store' not found" in done.stdout
    assert passed(named) == 5


def test_each_test_begins_at_zero(project: Path) -> None:
    """Metrics of modules, children that the app holds, and what an Info and an Enum say; in unittest's classes, too."""
    assert passed(run(project, "--import-mode=importlib")) == 5


def test_other_tests_find_what_was_before(project: Path) -> None:
    """In whichever order they come: values in memory, no store, no variable."""
    write(project, "conftest.py", COUNTED)
    write(project, "test_plain.py", PLAIN)
    tests = ["test_plain.py::test_plain[0]", "test_uses.py", "test_plain.py::test_plain[1]"]

    assert passed(run(project, *tests)) == 7


def test_a_store_that_was_installed_has_nothing_of_the_tests_and_all_of_the_others(project: Path, path: str) -> None:
    """Each count once, and gauges as they were; also when a test is interrupted."""
    write(project, "conftest.py", INSTALLED + COUNTED)
    write(project, "test_plain.py", "from app import JOBS\ndef test_plain():\n    JOBS.inc(10)\n")
    write(project, "test_stop.py", "def test_stop(sqlmetrics_store):\n    raise KeyboardInterrupt\n")
    tests = ["test_plain.py", "test_uses.py", "test_plain.py", "test_stop.py"]

    done = attempt(project, "--keep-duplicates", *tests, under=[], SQLMETRICS_PATH=path)

    assert done.returncode == 2, done.stdout + done.stderr
    assert values(path) == {"jobs_total": 23.0, "by_total": 2.0, "build_info": 1.0, "seconds_count": 0.0}


def values(path: str) -> dict[str, object]:
    """What a second reader finds of the app's metrics."""
    rows = Shell(path)("SELECT metric AS name, value FROM metrics")
    wanted = ("jobs_total", "by_total", "build_info", "seconds_count")
    return {str(row["name"]): row["value"] for row in rows if row["name"] in wanted}


def test_a_run_under_the_launcher_counts_in_its_store(project: Path, path: str) -> None:
    """Except in a test that asks for an empty one."""
    write(project, "test_plain.py", "from app import JOBS\ndef test_plain():\n    JOBS.inc(10)\n")

    run(project, "test_uses.py", "test_plain.py", "test_uses.py", under=[*SQLMETRICS, "run", "--path", path, "--"])

    assert values(path)["jobs_total"] == 10.0


@pytest.mark.slow
def test_processes_of_every_kind_count_in_the_store_of_their_test(project: Path) -> None:
    """Forked, spawned, started with the launcher, and gunicorn's workers; and another program reads it."""
    write(
        project,
        "web.py",
        """
        from app import JOBS

        def application(environ, start_response):
            JOBS.inc()
            start_response("200 OK", [])
            return [b"done"]
        """,
    )
    write(
        project,
        "test_processes.py",
        f"""
        import multiprocessing, socket, subprocess, sys
        import sqlmetrics
        from app import JOBS, work
        from helpers import wait_for

        def scraped():
            shown = subprocess.run([*{SQLMETRICS}, "show", "--csv"], capture_output=True, text=True, check=True).stdout
            return [line for line in shown.splitlines() if "jobs_total" in line]

        def test_multiprocessing(sqlmetrics_store):
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(1, initializer=sqlmetrics.install) as pool:
                    pool.apply(work)
            subprocess.run([*{SQLMETRICS}, "run", sys.executable, "-c", "import app; app.work()"], check=True)
            assert sqlmetrics_store.get_sample_value("jobs_total") == 3
            assert scraped() == ["jobs,counter,jobs_total,{{}},,3"]

        def test_gunicorn(sqlmetrics_store, tmp_path):
            assert sqlmetrics_store.get_sample_value("jobs_total") == 0
            place = str(tmp_path / "socket")
            command = [*{SQLMETRICS}, "run", sys.executable, "-m", "gunicorn", "-w", "2", "-b", "unix:" + place, "web"]
            server = subprocess.Popen(command)
            try:
                wait_for(lambda: asked(place))
                assert all(asked(place) for _ in range(9))
            finally:
                server.terminate()
                server.wait()
            assert sqlmetrics_store.get_sample_value("jobs_total") == 10

        def asked(place):
            with socket.socket(socket.AF_UNIX) as one:
                try:
                    one.connect(place)
                except OSError:
                    return False
                one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                return b"done" in b"".join(iter(lambda: one.recv(1000), b""))
        """,
    )
    tests = str(Path(__file__).parent)

    assert passed(run(project, "test_processes.py", PYTHONPATH=os.pathsep.join([str(project), tests]))) == 2


def test_a_process_that_a_test_has_left_does_not_count_in_the_next_one(project: Path) -> None:
    """It keeps the store of its test."""
    write(
        project,
        "test_left.py",
        """
        import os, subprocess, sys, time
        from app import JOBS

        COUNTS = "import sqlmetrics; sqlmetrics.install(); from app import JOBS\\nwhile True: JOBS.inc()"
        left = []

        def test_one(sqlmetrics_store):
            left.append(subprocess.Popen([sys.executable, "-c", COUNTS]))
            while not sqlmetrics_store.get_sample_value("jobs_total"):
                time.sleep(0.01)

        def test_two(sqlmetrics_store):
            try:
                assert [sqlmetrics_store.get_sample_value("jobs_total") for _ in range(20)] == [0] * 20
                JOBS.inc()
                assert sqlmetrics_store.get_sample_value("jobs_total") == 1
            finally:
                left[0].kill()
                left[0].wait()
        """,
    )

    assert passed(run(project, "test_left.py")) == 2


@pytest.mark.slow
def test_processes_of_xdist_have_a_store_each(project: Path) -> None:
    """They run the same tests at the same time."""
    write(
        project,
        "test_many.py",
        """
        import os, pathlib
        import pytest
        from app import JOBS

        @pytest.mark.parametrize("number", range(10))
        def test_one(sqlmetrics_store, number):
            JOBS.inc()
            assert sqlmetrics_store.get_sample_value("jobs_total") == 1
            pathlib.Path(os.environ["PYTEST_XDIST_WORKER"]).write_text(sqlmetrics_store.path)
        """,
    )

    assert passed(run(project, "-n", "2", "test_many.py")) == 10
    assert (project / "gw0").read_text() != (project / "gw1").read_text()


REGISTRY = """
    import pytest
    from app import JOBS
    from prometheus_client import Counter, generate_latest

    @pytest.mark.parametrize("number", range(2))
    def test_registry(request, number):
        if number:
            request.getfixturevalue("sqlmetrics_store")
        registry = request.getfixturevalue("sqlmetrics_registry")
        Counter("mine", "Of this test", registry=registry).inc()
        JOBS.inc()
        assert registry.get_sample_value("mine_total") == 1
        assert b"jobs" not in generate_latest(registry)
"""


def test_each_test_has_a_registry_with_its_own_metrics(project: Path) -> None:
    """With a store and without one."""
    write(project, "test_registry.py", REGISTRY)

    assert passed(run(project, "test_registry.py")) == 2


def test_a_registry_that_would_not_begin_at_zero_says_what_to_do(project: Path) -> None:
    """`prometheus_client` finds the earlier values of a name in its files."""
    write(project, "test_registry.py", REGISTRY)
    (project / "files").mkdir()

    done = attempt(project, "test_registry.py", under=[], PROMETHEUS_MULTIPROC_DIR=str(project / "files"))

    assert "1 failed, 1 passed" in done.stdout
    assert "have the test ask for the fixture sqlmetrics_store first" in done.stdout.replace("\n", " ")


@pytest.mark.slow
def test_what_a_test_does_with_the_store_is_made_good(project: Path, path: str) -> None:
    """It uninstalls it, deletes its files, or installs another, which stays as long as no other test asks."""
    write(
        project,
        "test_wild.py",
        f"""
        import pathlib
        import sqlmetrics
        from app import JOBS, work

        def test_uninstall(sqlmetrics_store):
            work()
            sqlmetrics.uninstall()

        def test_delete(sqlmetrics_store):
            work()
            for file in pathlib.Path(sqlmetrics_store.path).parent.iterdir():
                file.unlink()

        def test_other(sqlmetrics_store):
            sqlmetrics.uninstall()
            sqlmetrics.install({path!r})
            JOBS.inc(5)
        """,
    )
    tests = ["uninstall", "delete", "other"]
    again = [one for name in tests for one in (f"test_wild.py::test_{name}", "test_uses.py")]

    assert passed(run(project, "--keep-duplicates", *again)) >= 8
    assert values(path)["jobs_total"] == 5.0
