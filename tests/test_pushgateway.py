"""The Pushgateway gets the aggregate, from any process: Debian's own where it is installed, as in CI."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from helpers import child, wait_for
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    delete_from_gateway,
    generate_latest,
    push_to_gateway,
    pushadd_to_gateway,
)
from prometheus_client.exposition import passthrough_redirect_handler
from prometheus_client.parser import text_string_to_metric_families

import sqlmetrics

pytestmark = pytest.mark.promise(12)

_STAND_IN = Path(__file__).parent / "apps" / "gateway.py"


class Gateway:
    """A running Pushgateway."""

    def __init__(self, port: int):
        self.address = f"127.0.0.1:{port}"

    def text(self) -> str:
        """What Prometheus would scrape of it."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def values(self, job: str) -> dict[str, float]:
        """The samples that were pushed for a job, by their names."""
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.labels.get("job") == job and not sample.name.startswith(("push_", "process_", "python_"))
        }

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            return bool(self.text()) or True
        except OSError:
            return False


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Debian's prometheus-pushgateway, or, where it is not installed, something that keeps what it is sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("prometheus-pushgateway")
    listen = f"--web.listen-address=127.0.0.1:{port}"
    command = [program, listen] if program else [sys.executable, str(_STAND_IN), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        one = Gateway(port)
        wait_for(one.answers)
        yield one
        process.kill()


@pytest.mark.parametrize("push", [push_to_gateway, pushadd_to_gateway], ids=["push", "pushadd"])
def test_the_aggregate_is_pushed_from_any_process(store: sqlmetrics.Store, gateway: Gateway, push) -> None:
    """A batch job that works in several processes and pushes from one of them, with the plain registry."""
    rows = Counter("rows", "Rows")
    top = Gauge("top", "Top", multiprocess_mode="max")

    def work(number: int) -> None:
        rows.inc(number)
        top.set(number)

    work(2)

    def push_all() -> None:
        try:
            push(gateway.address, "batch", REGISTRY)
        except HTTPError as error:
            raise AssertionError(f"{error.read().decode()} of {generate_latest(REGISTRY).decode()}") from error

    with child(work=work, push=push_all) as one:
        one.do("work", 3)
        one.do("push")
        expected = {"rows_total": 5, "top": 3}
        assert {name: value for name, value in gateway.values("batch").items() if name in expected} == expected
        one.do("work", 4)
        one.kill()
    push(gateway.address, "batch", REGISTRY)

    assert gateway.values("batch")["rows_total"] == 9
    delete_from_gateway(gateway.address, "batch")
    assert gateway.values("batch") == {}


@pytest.mark.parametrize("push", [push_to_gateway, pushadd_to_gateway], ids=["push", "pushadd"])
def test_what_is_pushed_of_a_registry_of_its_own_is_its_own(store: sqlmetrics.Store, gateway: Gateway, push) -> None:
    """A job in each of several processes, and one after another, with the names of the others; also with a handler."""

    def job(number: int) -> None:
        registry = CollectorRegistry()
        Counter("rows", "Rows", registry=registry).inc(number)
        Gauge("last_success", "Last success", registry=registry).set(number)
        Histogram("seconds", "Seconds", ["step"], buckets=[1], registry=registry).labels("read").observe(number)
        push(gateway.address, f"job {number}", registry, handler=passthrough_redirect_handler)

    def shown(number: int) -> dict[str, float]:
        found = gateway.values(f"job {number}")
        return {name: value for name, value in found.items() if not name.endswith("_created")}

    with child(job=job) as one:
        one.do("job", 2)
        job(3)
        one.do("job", 4)
        job(5)
    for number in (2, 3, 4, 5):
        buckets = {"seconds_bucket": 1, "seconds_count": 1, "seconds_sum": number}
        assert shown(number) == {"rows_total": number, "last_success": number} | buckets
    assert "pid=" not in gateway.text()
    delete_from_gateway(gateway.address, "job 3")
    assert gateway.values("job 3") == {}


_JOB = """
import sys
import sqlmetrics
sqlmetrics.install(sys.argv[1])
from prometheus_client import CollectorRegistry, Counter, Gauge, push_to_gateway
registry = CollectorRegistry()
rows = Counter("rows", "Rows", ["table"], registry=registry)
Gauge("last_success", "Last success", registry=registry).set(int(sys.argv[3]))
rows.labels(sys.argv[3]).inc(int(sys.argv[3]))
push_to_gateway(sys.argv[2], sys.argv[3], registry)
"""


@pytest.mark.slow
def test_what_a_script_pushes_is_its_own(path: str, gateway: Gateway) -> None:
    """Its registry is made at the script's level, as the documentation of `prometheus_client` has it."""
    for number in ("1", "2", "3"):
        command = [sys.executable, "-c", _JOB, path, gateway.address, number]
        subprocess.run(command, check=True, timeout=60)

    for number in ("1", "2", "3"):
        found = gateway.values(number)
        assert (found["rows_total"], found["last_success"]) == (int(number), int(number))
    assert gateway.text().count('rows_total{instance="",job="3"') == 1
    assert "pid=" not in gateway.text()


def test_a_registry_with_a_collector_is_pushed_too(store: sqlmetrics.Store, gateway: Gateway) -> None:
    """With a grouping key, and one replaces the other."""
    Counter("rows", "Rows", registry=None).inc(2)
    registry = CollectorRegistry()
    sqlmetrics.MultiProcessCollector(registry)
    push_to_gateway(gateway.address, "batch", registry, grouping_key={"shard": "1"})

    assert gateway.values("batch") == {"rows_total": 2}
    assert 'shard="1"' in gateway.text()
