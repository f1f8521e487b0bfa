"""Reports metrics to which two versions of an app give different types; nothing of them is lost."""

from __future__ import annotations

import apsw

from ..cells.home import Home

SELECT_CONFLICTS = """
SELECT name || ' is ' || group_concat(type, ' and ') FROM (SELECT name, type FROM family ORDER BY name, type)
 GROUP BY name HAVING count(*) > 1
"""


class Conflicts:
    """Looks for families with one name and several types, whenever there are new families."""

    def __init__(self, home: Home):
        self._home = home
        self._looked_at: object = None

    def look(self, connection: apsw.Connection) -> None:
        """Report such families, once each time that they come up. Call it after a flush."""
        plan = connection.execute("SELECT plan FROM store").get
        if plan == self._looked_at:
            return
        self._looked_at = plan
        found = [str(text) for (text,) in connection.execute(SELECT_CONFLICTS).fetchall()]
        if found:
            self._home.report("types", f"{'; '.join(found)}: all of them are shown; give one of them another name")
        else:
            self._home.over("types", "no metric has two types any more")
