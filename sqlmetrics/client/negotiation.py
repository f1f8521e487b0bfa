"""Chooses the format for a client: one that is really written here, with the content type of that format."""

from __future__ import annotations

import re

from prometheus_client import exposition
from prometheus_client.exposition import choose_encoder

from ..scrape.text import Encoder

_NEWEST = "1.0.0"
"""The newest version that is written, of OpenMetrics and of the text format with names in UTF-8."""
_QUALITY = re.compile(r";\s*q=([01](?:\.[0-9]{0,3})?)\s*(?:;|$)", re.IGNORECASE)
_NUMBERS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")


def negotiated(accept: str) -> tuple[Encoder, str]:
    """Return the encoder for what a client accepts, and the ``Content-Type`` of its text. Raises nothing.

    `prometheus_client` chooses. But it would call its text by any version that the client asks for, and would raise
    for a version that is no number. So a version that is too new becomes the newest one, and a type with a version
    that is no number is left out. It takes the first type that it knows, so the types are given to it in the order in
    which the client prefers them, and none that the client likes less than the text format 0.0.4, its last resort.
    """
    asked = _preferred(accept)
    least = max((quality for quality, kind in asked if _is_plain(kind)), default=0.0)
    understood = [_understood(kind) for quality, kind in asked if quality >= least]
    return choose_encoder(",".join(filter(None, understood)))


def gzip_accepted(accept_encoding: str) -> bool:
    """Return whether a client accepts gzip, which `prometheus_client` also believes of one that refuses it by q=0."""
    accepted: bool = exposition.gzip_accepted(",".join(kind for _, kind in _preferred(accept_encoding)))
    return accepted


def _preferred(header: str) -> list[tuple[float, str]]:
    """Return what a header accepts, with its quality, the best first; without what it refuses."""
    found = [(_quality(one), one) for one in header.split(",")]
    return sorted(((quality, one) for quality, one in found if quality), key=lambda pair: -pair[0])


def _quality(accepted: str) -> float:
    """Return the parameter q; 1 if there is none, or if it is nonsense."""
    found = _QUALITY.search(accepted)
    return float(found[1]) if found else 1.0


def _is_plain(accepted: str) -> bool:
    """Return whether a type is the text format 0.0.4."""
    kind, *parameters = (part.strip() for part in accepted.split(";"))
    versions = [one for one in parameters if one.startswith("version=")]
    return kind == "text/plain" and versions in ([], ["version=0.0.4"])


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
