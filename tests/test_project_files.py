"""What surrounds the code is true and safe: workflows, templates, the way in for contributors, the package's data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import ROOT

import sqlmetrics

CI = ROOT / ".ci" / "run"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
_PINNED = re.compile(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
    assert len(found) > 0
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_action_is_pinned_by_its_commit(workflow: Path) -> None:
    """A tag can be moved; the comment says which one it was."""
    uses = [line.strip("- ") for line in workflow.read_text("utf-8").split("\n") if "uses:" in line]

    assert len(uses) > 2
    assert [line for line in uses if not _PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_job_has_the_least_rights_and_an_end(workflow: Path) -> None:
    """None by default, and what a job does; only what publishes can say who it is; no job sees a secret."""
    text = workflow.read_text("utf-8")
    rights = {name: job["permissions"] for name, job in jobs(workflow).items()}

    assert yaml.safe_load(text)["permissions"] == {}
    assert rights.pop("publish", {"id-token": "write"}) == {"id-token": "write"}
    assert set(map(str, rights.values())) == {"{'contents': 'read'}"}
    assert [name for name, job in jobs(workflow).items() if "timeout-minutes" not in job] == []
    assert "secrets." not in text
    assert "pull_request_target" not in text
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


def test_the_workflow_runs_every_python_that_is_claimed() -> None:
    """And one that is not yet, and one that may fail."""
    matrix = jobs(ROOT / ".github" / "workflows" / "ci.yml")["tests"]["strategy"]["matrix"]
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)

    assert len(claimed) >= 4
    assert matrix["python"] == claimed
    assert matrix["include"] == [{"python": "3.14"}, {"python": "3.14t", "may-fail": True}]
    assert f"py{{{','.join(one.replace('.', '') for one in claimed)}" in tox()


def tox() -> str:
    """The settings of tox."""
    return (ROOT / "tox.ini").read_text("utf-8")


def test_the_oldest_requirements_are_the_same_wherever_they_are_tried() -> None:
    """In the workflow, in tox and in the package's own requirements."""
    required = dict(re.findall(r'^    "(prometheus_client|apsw)>=([\d.]+)",$', PYPROJECT, re.M))
    pinned = {f"{name}=={version}{'.0' * (2 - version.count('.'))}" for name, version in required.items()}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")

    assert len(pinned) == 2
    assert [one for one in pinned if one not in workflow] == []
    assert [one for one in pinned if one not in tox()] == []


def test_the_version_is_in_one_place() -> None:
    """Everything else asks the package."""
    version = re.escape(sqlmetrics.__version__)
    places = [*ROOT.glob("*.toml"), *ROOT.glob("*.yml"), *(ROOT / "sqlmetrics").rglob("*.py")]
    named = [path.name for path in places if re.search(rf"version.*\b{version}\b", path.read_text("utf-8"))]

    assert named == ["version.py"]


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    """With its date, or with the word that it has none yet."""
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)

    assert first is not None
    assert re.fullmatch(rf"{re.escape(sqlmetrics.__version__)} - (unreleased|\d{{4}}-\d\d-\d\d)", first[1])


def test_the_way_in_names_every_part_of_the_package_and_tests_that_exist() -> None:
    """The table says for each folder which tests to run first."""
    table = [
        line for line in CONTRIBUTING.split("\n") if re.match(r"\| `(sqlmetrics|migrations|docs|bench|pyproj)", line)
    ]
    tests = set(re.findall(r"\btest_\w+\.py", CONTRIBUTING))
    folders = [path.name for path in (ROOT / "sqlmetrics").iterdir() if any(path.glob("*.py"))]

    assert len(folders) > 8
    assert [name for name in folders if f"`sqlmetrics/{name}/`" not in "".join(table) and name != "demo"] == []
    assert len(tests) > 40
    assert [name for name in tests if not any((ROOT / folder / name).is_file() for folder in ("tests", "dropin"))] == []


@pytest.mark.skipif(not CI.is_file(), reason="a source distribution has no .ci")
def test_the_way_in_names_what_the_tests_need_from_debian() -> None:
    """The packages that `.ci/run` installs, but for what makes the environments."""
    text = CI.read_text("utf-8")
    lists = [*re.findall(r"for program in (.*); do", text), *re.findall(r"missing\+=\((.*?)\)", text)]
    needed = {name for names in lists for name in names.split()} - {"$program", '"$program"', "python3-venv"}
    told = {
        name for names in re.findall(r"apt-get install (.*)", CONTRIBUTING) for name in re.findall(r"[\w-]+", names)
    }

    assert len(needed) > 10
    assert needed - told == set()


def test_the_way_in_names_every_variable_of_the_tests() -> None:
    """Those that the tests read from their environment."""
    sources = [path.read_text("utf-8") for folder in ("tests", "dropin") for path in (ROOT / folder).glob("*.py")]
    read = set(re.findall(r"environ(?:\.get\(|\[)\"(SQLMETRICS_\w+)\"", "\n".join(sources)))
    tests_own = {name for name in read if re.search("TEST|SEEDS|GUNICORN23|PEER", name)}

    assert len(tests_own) >= 4
    assert [name for name in tests_own if f"`{name}" not in CONTRIBUTING] == []


def test_what_only_developers_need_is_no_extra() -> None:
    """Published extras are for users, but for the one that the README's command installs with an old pip."""
    extras = re.findall(
        r"^(\w+) = \[", PYPROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0], re.M
    )
    groups = re.findall(r"^(\w+) = \[", PYPROJECT.partition("[dependency-groups]")[2].partition("\n[")[0], re.M)

    assert extras == ["gunicorn", "demo", "cli", "serve", "test"]
    assert groups == ["dev", "dropin", "bench"]


def test_templates_have_what_the_host_wants_to_read() -> None:
    """A name and what it is about."""
    templates = list((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"))
    heads = [yaml.safe_load(one.read_text("utf-8").split("---\n")[1]) for one in templates]

    assert len(heads) > 1
    assert all({"name", "about"} <= set(head) for head in heads)


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_an_address_that_is_open_is_marked_and_listed(name: str) -> None:
    """Until it is filled in, contributors read where it belongs."""
    is_open = "To be filled in" in (ROOT / name).read_text("utf-8")

    assert is_open == (f"`{name}`" in CONTRIBUTING.partition("what is missing")[2])
