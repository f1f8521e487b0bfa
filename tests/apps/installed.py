"""The entry point of a site that calls `install()` first."""

import sqlmetrics

sqlmetrics.install()

from official_site import app  # noqa: E402 - the order that the documentation recommends

__all__ = ["app"]
