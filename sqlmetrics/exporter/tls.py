"""The certificate for HTTPS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tls:
    """A certificate and its key, both PEM files; key: None if the certificate's file has it, too."""

    cert: str | None = None
    key: str | None = None

    def __str__(self) -> str:
        return f"the certificate {self.cert} or its key{f' {self.key}' if self.key else ''}"
