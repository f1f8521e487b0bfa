"""Two versions of an app that call one metric different types: nothing is lost, and somebody is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apsw

    from .store import Store

CONFLICTS = """
SELECT name || ' is ' || group_concat(type, ' and ') FROM (SELECT name, type FROM family ORDER BY name, type)
 GROUP BY name HAVING count(*) > 1
"""


class Conflicts:
    """Looks for families of one name and several types whenever families have come."""

    def __init__(self, store: Store):
        self._store = store
        self._looked_at: object = None

    def look(self, connection: apsw.Connection) -> None:
        """Report what there is, counted once for each time that it comes up; after a flush."""
        plan = connection.execute("SELECT plan FROM store").get
        if plan == self._looked_at:
            return
        self._looked_at = plan
        found = [str(text) for (text,) in connection.execute(CONFLICTS).fetchall()]
        trouble, path = self._store.trouble, self._store.path
        if found:
            trouble.report("types", f"{path}: {'; '.join(found)}: all of them are shown; give one of them another name")
        else:
            trouble.over("types", f"{path}: no metric has two types any more")
