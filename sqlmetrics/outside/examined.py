"""All checks of a store and its surroundings."""

from __future__ import annotations

import os

from . import check_host, check_store
from .findings import ERROR, Finding
from .place import Place


def findings(place: Place) -> list[Finding]:
    """Return all findings, those of the surroundings first."""
    if not os.path.lexists(place.path):
        fix = "start the app with install() or `sqlmetrics run`; is it the same path, user and container?"
        return [Finding("store", ERROR, "there is none", fix)]
    return [*check_host.findings(place.path), *check_store.findings(place)]
