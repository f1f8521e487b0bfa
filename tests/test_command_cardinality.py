"""`sqlmetrics cardinality`: the label that exploded is the first that is named."""

from __future__ import annotations

import shlex

import pytest
from helpers import Shell
from looking import Said, as_they_are, command, worker


def cardinality(path: str, *arguments: str) -> Said:
    """The command."""
    return command("cardinality", "--path", path, *arguments)


def test_the_greediest_label_comes_first(path: str, shell: Shell) -> None:
    """With its values; the numbers are those of the view, and nothing is changed."""
    with worker(path, flush_interval=1000) as one, worker(path, flush_interval=1000) as two:
        one.do("stop")
        two.do("stop")
        for each in (one, two):
            each.do("burst", 0, 300)
            each.do("observe", "/", 0.2)
            each.do("observe", "/x", 0.2)
            each.do("flush")
        before = as_they_are(path)
        found = cardinality(path, "--json").json()
        assert as_they_are(path) == before

        for family in found["families"]:
            (row,) = shell(f"SELECT count(*) AS n FROM metrics WHERE family = '{family['name']}'")
            assert family["series"] == row["n"], family
            names = f"SELECT metric FROM metrics WHERE family = '{family['name']}'"
            (row,) = shell(f"SELECT count(*) AS n FROM samples WHERE metric IN ({names})")
            assert family["samples"] == row["n"], family

    first, second = found["families"][:2]
    assert (first["name"], first["series"], first["label_sets"], first["samples"]) == ("requests", 300, 300, 600)
    assert first["labels"] == [{"name": "path", "values": 300, "most": "0", "most_series": 1}]
    assert (second["name"], second["series"], second["label_sets"]) == ("latency_seconds", 12, 2)
    assert [label["name"] for label in second["labels"]] == ["path"]
    assert first["bytes"] > 600 * 8


def test_what_to_paste_is_printed(path: str) -> None:
    """A limit, and a command that removes; of odd values quoted for a shell."""
    with worker(path) as one:
        one.do("burst", 0, 150)
        one.do("count", "it's; rm -rf", 1)
        text = cardinality(path).out

    assert "SQLMETRICS_MAX_SERIES=1000" in text
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("  sqlmetrics remove")]
    of_all = ["sqlmetrics", "remove", "--path", path, "requests"]
    assert of_all in commands
    assert all(words[:5] == of_all and len(words) <= 6 for words in commands)


def test_what_to_paste_names_the_store_only_if_an_option_did(path: str) -> None:
    """The environment names it where it is pasted, too."""
    with worker(path) as one:
        one.do("burst", 0, 150)
        text = command("cardinality", SQLMETRICS_PATH=path).out

    assert "\n  sqlmetrics remove requests\n" in text


@pytest.mark.parametrize("top", ["0", "-3", "x", "1.5", "²"])
def test_a_top_of_nothing_is_refused(path: str, top: str) -> None:
    """It would print one family."""
    done = cardinality(path, "--top", top)

    assert done.status == 2
    assert f"expected a whole number above 0, not {top!r}" in done.err


def test_few_series_need_no_advice(path: str) -> None:
    """And an empty store has none."""
    with worker(path) as one:
        one.do("count", "/", 1)
        text = cardinality(path).out
    assert "requests" in text
    assert "remove" not in text


def test_children_that_have_no_rows_yet_are_counted(path: str) -> None:
    """An explosion is seen while it goes on."""
    with worker(path, flush_interval=1000) as one:
        one.do("stop")
        one.do("burst", 0, 5000)
        (family, *_) = cardinality(path, "--json").json()["families"]

    assert (family["name"], family["series"]) == ("requests", 5000)
