"""Checks the password or the token of a request, if there is one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import stat

from ..errors import SQLMetricsError

_LONGEST = 4096
"""Bytes of a secret."""


class SecretError(SQLMetricsError, ValueError):
    """A file with a password or a token cannot be used."""


class Access:
    """Compares a request's ``Authorization`` header with the secret.

    scheme: `Basic` or `Bearer`; '' if anybody may ask. secret: ``user:password``, or the token.
    """

    def __init__(self, scheme: str = "", secret: bytes = b""):
        self.scheme = scheme
        self._digest = _digest(secret)

    def allows(self, authorization: str) -> bool:
        """Whether the secret is right; takes the same time for any wrong one."""
        if not self.scheme:
            return True
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == self.scheme.lower() and hmac.compare_digest(
            _digest(self._decoded(given.strip())), self._digest
        )

    def challenge(self) -> str:
        """Return the ``WWW-Authenticate`` header for a client without the secret."""
        return f'{self.scheme} realm="sqlmetrics"' + (', charset="UTF-8"' if self.scheme == "Basic" else "")

    def _decoded(self, given: str) -> bytes:
        text = given.encode("latin-1", "replace")
        try:
            return base64.b64decode(text, validate=True) if self.scheme == "Basic" else text
        except binascii.Error:
            return b""


def of_files(password_file: str | None, token_file: str | None) -> Access:
    """Return the access with the secret in one of these files; without a file, for anybody. Raises SecretError."""
    if password_file is not None:
        secret = _line(password_file)
        if not all(secret.partition(b":")):
            raise SecretError(f"{password_file}: expected one line, USER:PASSWORD")
        return Access("Basic", secret)
    return Access("Bearer", _line(token_file)) if token_file is not None else Access()


def _line(path: str) -> bytes:
    """Return the only line of a file that other users may not read."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LONGEST + 1).rstrip(b"\r\n")
    except OSError as error:
        raise SecretError(f"{path} cannot be read ({error.strerror})") from error
    if mode & stat.S_IRWXO:
        raise SecretError(f"{path} ({stat.filemode(mode)}) is open to all users; chmod o= {path}")
    if not text or b"\n" in text or len(text) > _LONGEST:
        raise SecretError(f"{path}: expected one line of {_LONGEST} bytes at most, and no more")
    return text


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
