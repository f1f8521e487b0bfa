-- How far the rows of a process are behind what it has counted. What it has counted is in the cells file, which SQL does
-- not see: so its flushes write how far they came.

-- All that the process had counted by then is in rows; nanoseconds since the epoch, NULL before the first flush.
ALTER TABLE process ADD COLUMN flushed INTEGER;
-- 1: a later flush has written a part of what it has to write.
ALTER TABLE process ADD COLUMN partial INTEGER NOT NULL DEFAULT 0;

DROP VIEW processes;

-- For people: who holds a part of the store, and who is remembered for its `all` gauges.
CREATE VIEW processes AS
SELECT process.pid AS pid,
       process.os_pid AS os_pid,
       CASE WHEN process.died IS NULL THEN 'live' ELSE 'dead' END AS state,
       datetime(process.started / 1000000000, 'unixepoch') AS started,
       datetime(process.died / 1000000000, 'unixepoch') AS died,
       (SELECT count(*) FROM sample JOIN series ON series.id = sample.series
         WHERE sample.process = process.id AND series.family NOT IN (SELECT id FROM figure))
         + (SELECT count(*) FROM kept WHERE kept.process = process.id) AS rows,
       datetime(process.flushed / 1000000000, 'unixepoch') AS flushed,
       CASE WHEN process.died IS NOT NULL THEN NULL
            WHEN NOT process.partial THEN 0.0
            ELSE max(round((julianday('now') - 2440587.5) * 86400.0
                           - ifnull(process.flushed, process.started) / 1000000000.0, 3), 0.0) END AS behind
  FROM process;
