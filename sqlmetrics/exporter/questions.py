"""The parameters of a question to the exporter."""

from __future__ import annotations

import json

from ..errors import SQLMetricsError

Given = dict[str, str]
"""The parameters of a question, by name."""


class RequestError(SQLMetricsError, ValueError):
    """The question makes no sense."""

    http_status = "400 Bad Request"


def wanted(given: Given, name: str) -> str:
    """Return a required parameter. Raises RequestError."""
    if not given.get(name):
        raise RequestError(f"{name}= is missing")
    return given[name]


def labels(given: Given) -> dict[str, str]:
    """Return the parameter ``labels``, a JSON object. Raises RequestError."""
    try:
        found = json.loads(given.get("labels", "{}"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError('labels: expected a JSON object, such as {"path":"/"}')
    return {str(name): str(value) for name, value in found.items()}
