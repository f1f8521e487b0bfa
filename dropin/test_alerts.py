"""The rules of `contrib/prometheus`: promtool likes them, and each alert fires for real.

A Prometheus scrapes a store in each of the states that they are about. Its copy of the alerts has ``for: 0s`` and is
evaluated each second. Expressions, thresholds and windows are as they are shipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from disks import Disk, can_mount
from engines import Engine, Prometheus, running
from helpers import wait_for
from pages import DOCS, ROOT
from states import STATES

from sqlmetrics.outside import state

RULES = ROOT / "contrib" / "prometheus"
RUNBOOK = DOCS / "how-to" / "runbook.md"
SECONDS = 60
SMALL = "12m"
SLOW = "SqlmetricsCellsNearLimit"
"""A scrape of thousands of processes takes longer than a second."""
OF_THE_TARGET = ("SqlmetricsTargetDown", "SqlmetricsJobGone")
"""These are about who answers, not about a store."""

_SCRAPE = """
global: {{evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
"""
_JOB = """
  - job_name: {name}
    scrape_interval: {seconds}s
    file_sd_configs: [{{files: [{folder}/{name}.json]}}]
"""


def alerts() -> list[dict]:
    """Those that are shipped."""
    return [
        rule
        for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml", "rules.yml"), ("test", "rules", "tests.yml")])
def test_promtool_likes_the_rules(command: tuple[str, ...]) -> None:
    """Their syntax, and what they make of made-up series: see tests.yml."""
    done = subprocess.run(["promtool", *command], cwd=RULES, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_pass_their_tests_with_an_address_of_your_own(tmp_path: Path) -> None:
    """By the command of the page, in a copy of the folder."""
    page = (DOCS / "how-to" / "dashboards-and-alerts.md").read_text("utf-8")
    (command,) = re.findall(r"^\$ (sed .*)$", page, re.M)
    copy = shutil.copytree(RULES, tmp_path / "copy")
    subprocess.run(["sh", "-c", command], cwd=copy, check=True, timeout=60)

    assert (copy / "alerts.yml").read_text().count("runbook_url: https://") == len(alerts())
    done = subprocess.run(["promtool", "test", "rules", "tests.yml"], cwd=copy, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_has_a_case_for_each_alert() -> None:
    """One in which it fires, and one in which it does not."""
    cases = [
        case for test in yaml.safe_load((RULES / "tests.yml").read_text())["tests"] for case in test["alert_rule_test"]
    ]
    names = {alert["alert"] for alert in alerts()}
    assert len(names) > 10
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_leads_to_a_section_of_the_runbook(alert: dict) -> None:
    """And has a severity and a summary."""
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text("utf-8"), re.M)
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert ROOT / page == RUNBOOK
    assert anchor == alert["alert"].lower()
    assert alert["alert"] in headings
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"]


def test_the_commands_warn_from_the_same_thresholds_on() -> None:
    """An alert would otherwise lead to a `status` that finds nothing."""
    expressions = {alert["alert"]: alert["expr"] for alert in alerts()}
    mebibytes = state.FREE_BYTES // (1024 * 1024)
    assert expressions["SqlmetricsCellsNearLimit"] == f"sqlmetrics_used_ratio > {state.NEARLY}"
    assert expressions["SqlmetricsDiskNearlyFull"] == f"sqlmetrics_free_bytes < {mebibytes} * 1024 * 1024"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place for stores, on tmpfs where there is one."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="sqlmetrics-alerts-", dir=shm))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program of `states`; it says a line when it is ready."""
    command = [sys.executable, str(Path(__file__).parent / "states.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            finally:
                process.kill()


@contextlib.contextmanager
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """A store in each state, by the name of the state."""
    with contextlib.ExitStack() as stack:
        paths, programs = {}, []
        for state in STATES:
            place = folder / state
            place.mkdir()
            if state == "SqlmetricsDiskNearlyFull":
                stack.callback(Disk(place, SMALL).unmount)
            paths[state] = str(place / "metrics.sqlite3")
            programs.append(stack.enter_context(program(state, paths[state])))
        assert [one.stdout.readline() for one in programs] == ["ready\n"] * len(STATES)
        yield paths


def ports_of(process: subprocess.Popen[str]) -> list[int]:
    """What a program that serves has said."""
    return [int(word) for word in process.stdout.readline().split()]


def at_once(folder: Path) -> Path:
    """The alerts with no time to wait for."""
    text, number = re.subn(r"^( +for:) \w+$", r"\1 0s", (RULES / "alerts.yml").read_text(), flags=re.M)
    assert number == len(alerts())
    file = folder / "alerts.yml"
    file.write_text(text)
    return file


def name_targets(folder: Path, job: str, ports: list[int]) -> None:
    """Tell Prometheus of a job's targets; it may read the file at any time."""
    made = folder / f"{job}.made"
    made.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in ports]}]))
    made.rename(folder / f"{job}.json")


def firing(engine: Engine) -> dict[str, set[str]]:
    """The jobs for which each alert fires now."""
    found = defaultdict(set)
    for one in engine.ask("/api/v1/alerts")["alerts"]:
        if one["state"] == "firing":
            found[one["labels"]["alertname"]].add(one["labels"]["job"])
    return dict(found)


@pytest.mark.skipif(not can_mount(), reason="one of the states is a small disk, which only root can mount")
@pytest.mark.row("engine", "Prometheus fires each alert", "debian:prometheus")
def test_each_alert_fires_for_a_store_in_that_state(folder: Path) -> None:
    """For this one only, and none for a store that is well."""
    names = {alert["alert"] for alert in alerts()}
    assert names == {*STATES, *OF_THE_TARGET} - {"well"}
    with contextlib.ExitStack() as stack:
        paths = stack.enter_context(stores(folder))
        served = stack.enter_context(program("serve", *paths.values()))
        ended = stack.enter_context(program("serve", *[paths["well"]] * len(OF_THE_TARGET)))
        targets = dict(zip(paths, ports_of(served), strict=True))
        targets |= dict(zip(OF_THE_TARGET, ports_of(ended), strict=True))
        for job, number in targets.items():
            name_targets(folder, job, [number])
        jobs = "".join(_JOB.format(name=job, folder=folder, seconds=10 if job == SLOW else 1) for job in targets)
        config = _SCRAPE.format(rules=at_once(folder)) + jobs
        engine = stack.enter_context(running(Prometheus, folder, config))
        wait_for(lambda: len(engine.query("up == 1", time.time())) == len(targets), SECONDS)
        name_targets(folder, "SqlmetricsJobGone", [])
        ended.kill()

        expected = {name: {name} for name in names}
        with contextlib.suppress(AssertionError):
            wait_for(lambda: firing(engine) == expected, SECONDS)
        assert firing(engine) == expected
        assert engine.query('ALERTS{job="well"}[1h]', time.time()) == []
