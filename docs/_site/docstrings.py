"""How docstrings become Markdown: lines such as ``mode, group: permission bits of …`` become a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): ", re.MULTILINE)


def listed(docstring: str) -> str:
    """The docstring, each paragraph that begins with an argument as a list of arguments."""
    parts = docstring.split("\n\n")
    return "\n\n".join(_ARGUMENT.sub(r"- `\1`: ", part) if _ARGUMENT.match(part) else part for part in parts)


class Arguments(griffe.Extension):
    """Lists the arguments in every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)
