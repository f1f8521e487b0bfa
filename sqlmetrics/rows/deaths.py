"""The processes that have ended, and what noticed it first: the newest hundred, and how many in all."""

from __future__ import annotations

import json
import time

import apsw

NOTICED = ("notice", "flush", "scrape", "start", "mending")
"""What may notice it: `mark_process_dead`, a flush, a scrape, the start of a run, or the making of new files."""
_REMEMBERED = 100

INSERT_ENDED_PROCESSES = """
INSERT INTO ended_process (pid, os_pid, started, flushed, died, noticed)
SELECT pid, os_pid, started, flushed, :died, :noticed
  FROM instance
 WHERE id IN (SELECT value FROM json_each(:processes))
 ORDER BY started, id
"""
SELECT_ENDED_COUNTS = "SELECT noticed, ended FROM ended_count"
DELETE_OLD = "DELETE FROM ended_process WHERE number <= (SELECT max(number) FROM ended_process) - ?"
UPSERT_ENDED_COUNT = """
INSERT INTO ended_count (noticed, ended) VALUES (?, ?)
ON CONFLICT (noticed) DO UPDATE SET ended = ended + excluded.ended
"""


def record(connection: apsw.Connection, instances: list[int], noticed: str) -> None:
    """Note deaths within the caller's transaction, before it deletes the processes' rows. noticed: see `NOTICED`."""
    if instances:
        died = time.clock_gettime(time.CLOCK_REALTIME)
        connection.execute(
            INSERT_ENDED_PROCESSES, {"processes": json.dumps(instances), "died": died, "noticed": noticed}
        )
        connection.execute(DELETE_OLD, (_REMEMBERED,))
        connection.execute(UPSERT_ENDED_COUNT, (noticed, len(instances)))


def counts(connection: apsw.Connection) -> dict[str, float]:
    """Return how many processes have ended since the store was made or reset, by what noticed it."""
    found = {str(noticed): float(str(ended)) for noticed, ended in connection.execute(SELECT_ENDED_COUNTS).fetchall()}
    return {**dict.fromkeys(NOTICED, 0.0), **found}


def forget(connection: apsw.Connection) -> None:
    """Forget all deaths, within the caller's transaction."""
    connection.execute("DELETE FROM ended_process")
    connection.execute("DELETE FROM ended_count")
