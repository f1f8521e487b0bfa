"""What the tests of `max_series` share."""

from __future__ import annotations

from helpers import scrape

FOREVER = 3600.0

OTHER = "(other)"


def paths_of(name: str = "requests_total") -> dict[str, float]:
    """The values of a sample by its label `path`, as a scrape shows them."""
    return {dict(labels)["path"]: value for (sample, labels), value in scrape().items() if sample == name}
