"""Chooses the format for a client: one that is really written here, with the content type of that format."""

from __future__ import annotations

import re

from prometheus_client.exposition import choose_encoder

from ..scrape.text import Encoder

_NEWEST = "1.0.0"
"""The newest version that is written, of OpenMetrics and of the text format with names in UTF-8."""
_NUMBERS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")


def negotiated(accept: str) -> tuple[Encoder, str]:
    """Return the encoder for what a client accepts, and the ``Content-Type`` of its text. Raises nothing.

    `prometheus_client` chooses. But it would call its text by any version that the client asks for, and would raise
    for a version that is no number. So a version that is too new becomes the newest one, and a type with a version
    that is no number is left out.
    """
    return choose_encoder(",".join(filter(None, map(_understood, accept.split(",")))))


def _understood(accepted: str) -> str:
    """Return an accepted type in a version that can be written; '' if its version is no number."""
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
