"""Two versions of an app that call one metric different types: nothing is lost, and somebody is told."""

from __future__ import annotations

import apsw

from ..cells.home import Home

SELECT_CONFLICTS = """
SELECT name || ' is ' || group_concat(type, ' and ') FROM (SELECT name, type FROM family ORDER BY name, type)
 GROUP BY name HAVING count(*) > 1
"""


class Conflicts:
    """Looks for families of one name and several types whenever families have come."""

    def __init__(self, home: Home):
        self._home = home
        self._looked_at: object = None

    def look(self, connection: apsw.Connection) -> None:
        """Report what there is, counted once for each time that it comes up; after a flush."""
        plan = connection.execute("SELECT plan FROM store").get
        if plan == self._looked_at:
            return
        self._looked_at = plan
        found = [str(text) for (text,) in connection.execute(SELECT_CONFLICTS).fetchall()]
        if found:
            self._home.report("types", f"{'; '.join(found)}: all of them are shown; give one of them another name")
        else:
            self._home.over("types", "no metric has two types any more")
