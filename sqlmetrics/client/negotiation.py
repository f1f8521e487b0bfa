"""Which format a client gets: one that is really written here, and the name of that one."""

from __future__ import annotations

import re

from prometheus_client.exposition import choose_encoder

from ..scrape.text import Encoder

_NEWEST = "1.0.0"
"""Of OpenMetrics, and of the text format with names in UTF-8."""
_NUMBERS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")


def negotiated(accept: str) -> tuple[Encoder, str]:
    """The encoder for what a client accepts, and the ``Content-Type`` of what it writes. Raises nothing.

    `prometheus_client` chooses, but calls its text by any version that is asked for, and raises for one that is no
    number. So it is asked for none that it does not write: a newer one is the newest, nonsense is not acceptable.
    """
    return choose_encoder(",".join(filter(None, map(_understood, accept.split(",")))))


def _understood(accepted: str) -> str:
    """One of the types that a client accepts, in a version that can be written; '' if its version is nonsense."""
    kind, *parameters = accepted.split(";")
    for at, parameter in enumerate(parameters):
        name, _, value = parameter.strip().partition("=")
        if name == "version" and value:
            version = value.strip().strip('"')
            if not _NUMBERS.fullmatch(version):
                return ""
            parameters[at] = f"version={_lowered(version)}"
    return ";".join([kind, *parameters])


def _lowered(version: str) -> str:
    is_newer = [int(part) for part in version.split(".")] > [int(part) for part in _NEWEST.split(".")]
    return _NEWEST if is_newer else version
