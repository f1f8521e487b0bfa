-- A process is alive or dead by the kernel's word, which SQL cannot ask: until somebody has settled it, this view says
-- `unsettled`. After that it is `remembered`, as long as its `all` gauges are.
DROP VIEW processes;

-- For people: who holds a part of the store, and who is remembered for its `all` gauges. flushed: the last sign of life.
CREATE VIEW processes AS
SELECT process.pid AS pid,
       process.os_pid AS os_pid,
       CASE WHEN process.died IS NULL THEN 'unsettled' ELSE 'remembered' END AS state,
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
