"""The benchmarks fit the package: a run takes long, and must not fail at its end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
sys.path.append(str(TOP))

from benchmarks import __main__, anatomy, table  # noqa: E402 - they are no part of what is installed


@pytest.mark.parametrize("name", [*anatomy.SCRAPE, *anatomy.FLUSH])
def test_each_function_that_is_timed_is_there(name: str) -> None:
    """Where the time goes is told by the package's own functions, by their names."""
    where, attribute = anatomy._find(name)

    assert callable(getattr(where, attribute))


def test_each_part_is_described() -> None:
    """The page of the benchmarks says what each part measures."""
    page = (TOP / "benchmarks" / "README.md").read_text()

    assert [part for part in __main__.PARTS if f"| `{part}` |" not in page] == []


def test_the_page_for_users_has_the_figures_of_the_whole_table() -> None:
    """Both tables are of one run: the shorter one leaves out targets and rivals, and changes no figure."""
    where, _, whole = __main__.marked(__main__.OWN_PAGE, "table")[1].partition("\n\n")
    lines = [line.strip("| ").split(" | ") for line in whole.strip().split("\n")[2:]]
    shown = __main__.marked(__main__.PAGE, "results")[1]

    assert set(table.RESULTS) <= {line[0] for line in lines}
    assert shown == f"{where}\n\n{table.results(lines)}"
