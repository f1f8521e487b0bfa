"""Each promise is held by tests that say so, and the page about that is true."""

from __future__ import annotations

import pytest
from promises import PAGE, files, held, held_by, page, promised


def test_the_page_about_promises_is_up_to_date() -> None:
    """Otherwise run ``python tests/promises.py``."""
    assert PAGE.read_text("utf-8") == page(), "run python tests/promises.py"


def test_each_promise_is_held_by_tests() -> None:
    """And no marker has the number of a promise that is not on the page."""
    everything = held()

    assert promised() == list(range(1, 13))
    assert {one.promise for one in everything} == set(promised())
    assert len({one.file for one in everything}) > 80


def test_the_markers_that_pytest_sees_are_those_on_the_page(request: pytest.FixtureRequest) -> None:
    """Of all tests of this run, however their markers came to them."""
    seen = {
        (item.path, number, item.originalname if isinstance(item, pytest.Function) else item.name)
        for item in request.session.items
        for marker in item.iter_markers("promise")
        for number in marker.args
    }
    assert seen or len(request.session.items) < 200  # of a few files that hold none

    known = {(one.file, one.promise): one.names for path in {path for path, _, _ in seen} for one in held_by(path)}
    for path, number, name in seen:
        names = known[path, number]
        assert not names or name in names
    assert set(files()) >= {path for path, _, _ in seen}
