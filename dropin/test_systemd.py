"""The units of `contrib/systemd`: systemd finds nothing wrong with them, and they do what the page says.

systemd itself does not run here. Its own tools check the units, make the users and the folder, and hand a socket to
the exporter; the services are started by hand as the users, and with the commands and variables, that the units name.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import free_port
from helpers import wait_for
from namespaces import can_unshare
from units import APP, BIN, READER, SHARED_GROUP, UNITS, Service, programs

pytestmark = [
    pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd's tools check the units"),
    pytest.mark.skipif(not can_unshare(), reason="only root can be the users that the units name"),
]
_APP = """
from prometheus_client import Counter
REQUESTS = Counter("requests", "Requests")
def app(environ, start_response):
    REQUESTS.inc()
    start_response("200 OK", [])
    return [b"done"]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="sqlmetrics-units-", dir="/dev/shm"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_systemd_finds_nothing_wrong(folder: Path) -> None:
    """No unknown key, no missing unit, no command that is not there."""
    (folder / "bin").mkdir()
    for name in ("gunicorn", "sqlmetrics", "celery"):
        (folder / "bin" / name).symlink_to("/bin/true")
    units = [unit for unit in UNITS.iterdir() if unit.suffix in (".service", ".socket")]
    for unit in units:
        (folder / unit.name).write_text(unit.read_text().replace(BIN, f"{folder}/bin/"))

    names = [str(folder / unit.name) for unit in units]
    done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, timeout=60)
    assert len(units) == 5
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_folder_is_the_apps_and_the_groups(folder: Path) -> None:
    """Made by systemd's own tools: the app's user writes, the exporter's group reads, nobody else enters."""
    (folder / "etc").mkdir()
    for tool, file in (("systemd-sysusers", "sysusers.conf"), ("systemd-tmpfiles --create", "tmpfiles.conf")):
        command = [*tool.split(), f"--root={folder}", str(UNITS / file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def number(file: str, name: str) -> int:
        lines = (folder / "etc" / file).read_text().splitlines()
        return next(int(line.split(":")[2]) for line in lines if line.startswith(f"{name}:"))

    made = os.stat(folder / "run" / "app-metrics")
    assert made.st_uid == number("passwd", "app")
    assert made.st_gid == number("group", "app-metrics")
    assert made.st_mode & 0o7777 == 0o2750


class Host:
    """The places and ports of a run of the units."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.app_port, self.port = free_port(), free_port()
        self.metrics = folder / "app-metrics"
        self.metrics.mkdir()
        os.chown(self.metrics, APP.uid, SHARED_GROUP)
        self.metrics.chmod(0o2750)
        (folder / "app.py").write_text(_APP)

    def here(self, text: str) -> str:
        """The text with the places of this run."""
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.app_port}").replace(
            "/run/app-metrics", str(self.metrics)
        )
        return text.replace(BIN, programs())

    def asked(self, port: int, path: str = "/") -> str | None:
        """What is answered; None if nobody does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def serve_requests(self, number: int) -> None:
        """Have the app answer so many requests."""
        wait_for(lambda: self.asked(self.app_port))
        assert all(self.asked(self.app_port) for _ in range(number - 1))


@pytest.mark.row(
    "supervisor", "systemd's units: server, and exporter by socket activation", "debian:systemd", "gunicorn"
)
def test_the_exporter_reads_what_the_server_counts_across_its_restarts(folder: Path) -> None:
    """Another user of the common group; started by the first scrape, and before the app."""
    host = Host(folder)
    server, exporter = Service("app.service", host.here), Service("app-exporter.service", host.here)
    activate = ("systemd-socket-activate", "-l", f"127.0.0.1:{host.port}", "-E", "PYTHONPATH")
    with (folder / "log").open("wb") as log, exporter.running(READER, log, folder, *activate):
        wait_for(lambda: host.asked(host.port, "/-/healthy") == "healthy\n")
        assert host.asked(host.port, "/-/ready") is None  # 503: there is no app yet
        for total in (10, 20):
            with server.running(APP, log, folder):
                host.serve_requests(10)
                assert f"\nrequests_total {total}.0\n" in str(host.asked(host.port, "/metrics"))
            text = str(host.asked(host.port, "/metrics"))  # with no app
            assert f"\nrequests_total {total}.0\n" in text
            assert 'sqlmetrics_processes{state="alive"} 0.0' in text
    owners = {
        (os.stat(file).st_uid, os.stat(file).st_gid, os.stat(file).st_mode & 0o777) for file in host.metrics.iterdir()
    }
    assert owners == {(APP.uid, SHARED_GROUP, 0o640)}


def test_the_server_tells_systemd_when_it_is_ready(folder: Path) -> None:
    """`Type=notify` waits for that: gunicorn says so itself."""
    host = Host(folder)
    server = Service("app.service", host.here)
    assert server.settings["Type"] == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, (folder / "log").open("wb") as log:
        told.bind(str(folder / "notify"))
        (folder / "notify").chmod(0o666)
        told.settimeout(20)
        with server.running(APP, log, folder, NOTIFY_SOCKET=str(folder / "notify")) as process:
            assert b"READY=1" in told.recv(4096)
            host.serve_requests(1)
            process.send_signal(signal.SIGHUP)  # ExecReload=
            host.serve_requests(1)
