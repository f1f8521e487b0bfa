"""What is given with a question to the exporter."""

from __future__ import annotations

import json

from ..errors import SQLMetricsError

Given = dict[str, str]
"""The parameters of a question, by name."""


class RequestError(SQLMetricsError, ValueError):
    """A question that makes no sense."""

    http_status = "400 Bad Request"


def wanted(given: Given, name: str) -> str:
    """A parameter that must be there. Raises RequestError."""
    if not given.get(name):
        raise RequestError(f"{name}= is missing")
    return given[name]


def labels(given: Given) -> dict[str, str]:
    """The parameter ``labels``, a JSON object. Raises RequestError."""
    try:
        found = json.loads(given.get("labels", "{}"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError('labels: expected a JSON object, such as {"path":"/"}')
    return {str(name): str(value) for name, value in found.items()}
