-- Who ended, and how that came to be known: what an operator asks in the morning after.

-- The newest hundred, in the order in which they were settled.
CREATE TABLE ended_process (
    number  INTEGER PRIMARY KEY,
    pid     TEXT    NOT NULL,
    os_pid  INTEGER NOT NULL,
    started REAL,
    flushed REAL,                           -- the last sign of life: all that it had counted by then was in rows
    died    REAL    NOT NULL,               -- when it was settled
    noticed TEXT    NOT NULL                -- by a `notice` (mark_process_dead), a `flush`, a `scrape`, the `start` of a
                                            -- run, or a `mending` of the files after a reboot
) STRICT;

-- All of them since the store was made or reset.
CREATE TABLE ended_count (
    noticed TEXT    PRIMARY KEY,
    ended   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- For people: the processes that ended last, the last one first.
CREATE VIEW deaths AS
SELECT pid,
       os_pid,
       datetime(started, 'unixepoch') AS started,
       datetime(flushed, 'unixepoch') AS flushed,
       datetime(died, 'unixepoch') AS died,
       noticed
  FROM ended_process
 ORDER BY number DESC;
