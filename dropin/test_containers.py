"""The images and manifests of `contrib`: validators find nothing wrong, and what they promise the kernel keeps.

Docker and Kubernetes do not run here. The two containers of a pod, or of a Compose file, are made by hand of what the
files say: users and groups, commands and variables, namespaces of pids and mounts, a read-only root, no capabilities,
and a tmpfs of that size between them.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from disks import Disk
from engines import free_port
from helpers import wait_for
from namespaces import can_unshare
from pods import DOCKER, KUBERNETES, Host, Pod, compose, kubernetes
from prometheus_client.parser import text_string_to_metric_families
from units import programs

MIB = 2**20
WORKERS = 4
_APP = """
from prometheus_client import Counter
REQUESTS = Counter("requests", "Requests")
def app(environ, start_response):
    REQUESTS.inc()
    start_response("200 OK", [])
    return [b"done"]
"""
VALIDATORS = {
    "Dockerfile": ("hadolint", [DOCKER / "Dockerfile"]),
    "Dockerfile.alpine": ("hadolint", [DOCKER / "Dockerfile.alpine"]),
    "compose.yaml": ("check-jsonschema", ["--builtin-schema=vendor.compose-spec", DOCKER / "compose.yaml"]),
    "deployment.yaml": ("kubernetes-validate", ["--strict", KUBERNETES / "deployment.yaml"]),
    "networkpolicy.yaml": ("kubernetes-validate", ["--strict", KUBERNETES / "networkpolicy.yaml"]),
}
NO_SCHEMA = {"podmonitor.yaml"}
"""Its schema is the Prometheus operator's, which no package has."""


@pytest.mark.parametrize("file", VALIDATORS)
def test_validators_find_nothing_wrong(file: str) -> None:
    """hadolint, the schema of the Compose specification, and those of Kubernetes."""
    program, arguments = VALIDATORS[file]
    done = subprocess.run([programs() + program, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN" not in done.stdout + done.stderr


def test_every_file_has_a_validator() -> None:
    """But for what has no schema."""
    files = {file.name for folder in (DOCKER, KUBERNETES) for file in folder.iterdir() if file.name[0] in "Ddcpn"}
    assert files == {*VALIDATORS, *NO_SCHEMA}


def test_names_of_ports_and_labels_lead_to_the_exporter() -> None:
    """What the monitor and the policy select is in the deployment; all of it is what Pod Security calls restricted."""
    deployment, monitor, policy = (
        yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())
        for name in ("deployment", "podmonitor", "networkpolicy")
    )
    template = deployment["spec"]["template"]
    app, exporter = template["spec"]["containers"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert policy["spec"]["podSelector"] == monitor["spec"]["selector"]
    assert [port["name"] for port in exporter["ports"]] == [monitor["spec"]["podMetricsEndpoints"][0]["port"]]
    assert exporter["livenessProbe"]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}
    assert exporter["readinessProbe"]["httpGet"] == {"path": "/-/ready", "port": "metrics"}
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    for container in (app, exporter):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
    assert app["securityContext"]["runAsUser"] != exporter["securityContext"]["runAsUser"]


def test_the_folder_of_the_store_may_be_made_twice(folder: Path) -> None:
    """The kubelet runs an init container again in the same pod, on the volume as it is."""
    deployment = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())
    (init,) = deployment["spec"]["template"]["spec"]["initContainers"]
    command = [part.replace("/metrics", str(folder)) for part in init["command"]]
    for _ in range(2):
        subprocess.run(command, check=True, timeout=20)
    assert stat.S_IMODE((folder / "app").stat().st_mode) == 0o2770


class Asked:
    """What is asked over HTTP."""

    def __init__(self) -> None:
        self.app_port, self.port = free_port(), free_port()

    def status(self, path: str) -> int:
        """The status of an answer of the exporter; 0 if there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def values(self) -> dict[str, float]:
        """What the exporter shows: the samples by name and values of labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def request(self, number: int) -> None:
        """Have the app answer so many requests."""

        def answered() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.app_port}/", timeout=20) as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait_for(answered)
        assert all(answered() for _ in range(number - 1))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, with the app."""
    path = Path(tempfile.mkdtemp(prefix="sqlmetrics-pod-", dir="/dev/shm"))
    path.chmod(0o755)
    (path / "app.py").write_text(_APP)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=[kubernetes, compose], ids=["kubernetes", "compose"])
def pod(request: pytest.FixtureRequest) -> Pod:
    """What the manifests describe."""
    read: Callable[[], Pod] = request.param
    return read()


@pytest.mark.skipif(not can_unshare(), reason="only root can make namespaces")
@pytest.mark.row("container", "The pod and the Compose file, as namespaces", "gunicorn")
def test_the_exporter_of_another_container_shows_what_the_app_counts(folder: Path, pod: Pod) -> None:
    """Before there is an app, beside it, after it was killed, and beside the next one on the folder that stays."""
    asked = Asked()
    host = Host(folder, {"8000": asked.app_port, "9464": asked.port})
    disk = Disk(host.volume, pod.disk.size)
    try:
        os.chown(host.volume, pod.disk.uid, pod.disk.gid)
        host.volume.chmod(pod.disk.mode)
        assert all(host.run(one, one.command) for one in pod.before)
        with host.running(pod.exporter) as end_exporter:
            wait_for(lambda: asked.status("/-/healthy") == 200)
            assert (asked.status("/-/ready"), asked.status("/metrics")) == (503, 503)
            for total in (20, 40):
                with host.running(pod.app) as end_app:
                    asked.request(20)
                    assert asked.values()["requests_total"] == total
                    wait_for(lambda: asked.values()["sqlmetrics_processes alive"] == WORKERS)
                    assert asked.status("/-/ready") == 200
                    assert all(host.run(one, ["sqlmetrics", "status"]) for one in (pod.app, pod.exporter))
                    end_app(signal.SIGKILL)
                values = asked.values()
                assert values["requests_total"] == total
                assert values["sqlmetrics_processes alive"] == 0
            assert values["gunicorn_requests_total GET 200"] == 40
            look_at_memory(host, values)
            look_at_rights(host, pod)
            assert end_exporter(signal.SIGTERM) == 0
    finally:
        print(host.log.read_text())  # shown with what fails
        disk.unmount()
    log = host.log.read_text()
    assert "Traceback" not in log
    assert "[ERROR]" not in log  # gunicorn wants to write nowhere but to the volume


def look_at_memory(host: Host, values: dict[str, float]) -> None:
    """The store is all that is on the volume, small beside its 64 MiB, and its size is what it says."""
    disk = os.statvfs(host.volume)
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    told = sum(values[f"sqlmetrics_bytes {file}"] for file in ("database", "wal", "shm", "cells"))
    assert disk.f_blocks * disk.f_frsize == 64 * MIB
    assert told <= used <= told + MIB
    assert used < 4 * MIB
    assert values["sqlmetrics_free_bytes"] == pytest.approx(disk.f_bavail * disk.f_frsize, abs=MIB)


def look_at_rights(host: Host, pod: Pod) -> None:
    """The app writes to the volume and nowhere else, the exporter nowhere, and others do not get in."""
    (store,) = host.volume.rglob("metrics.sqlite3")
    assert os.stat(store.parent).st_mode & 0o007 == 0
    for file in store.parent.iterdir():
        about = os.stat(file)
        assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (pod.app.who.uid, pod.disk.gid, 0o640)
    assert host.run(pod.app, ["sh", "-c", "touch /metrics/trial && rm /metrics/trial"])
    assert not host.run(pod.exporter, ["sh", "-c", "touch /metrics/trial"])
    for container in (pod.app, pod.exporter):
        assert host.run(container, ["sh", "-c", "cat app.py"])
        assert not host.run(container, ["sh", "-c", "touch trial"])
        assert not host.run(container, ["sh", "-c", "touch /tmp/trial"])
        assert host.run(container, ["sh", "-c", "grep -q '^CapEff:.0*$' /proc/self/status"])
        assert host.run(
            container, ["sh", "-c", "test $(ls -d /proc/[0-9]* | wc -l) -lt 9"]
        )  # it sees its own processes only
