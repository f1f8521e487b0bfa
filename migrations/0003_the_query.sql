-- What a scrape shows is the view `totals`. It is written over two relations, and so it is one definition for two
-- sources: the views `counts` and `gauges` below are made of rows, and a scrape puts the values of living processes,
-- read in place from their cells, under the same two names.

-- 1: the sample of a gauge, an Info or an Enum. Of these a zero counts, too; a sum is the same without it.
ALTER TABLE sample ADD COLUMN gauge INTEGER NOT NULL DEFAULT 0;
UPDATE sample SET gauge = 1
 WHERE series IN (SELECT series.id FROM series JOIN family ON family.id = series.family WHERE family.mode <> '');
CREATE INDEX gauge_cell ON sample (cell) WHERE gauge;
UPDATE store SET min_writer = 3;  -- an older version would write a gauge as a sum

DROP VIEW samples;
DROP VIEW metrics;

-- Parts of counters, summaries and histograms. Every series has one: what ended processes left of it, or zero.
CREATE VIEW counts (series, value) AS
SELECT series, value FROM sample WHERE NOT gauge
UNION ALL
SELECT series.id, CASE WHEN retired.series IS NULL THEN 0.0 ELSE retired.value END
  FROM series
  JOIN family ON family.id = series.family
  LEFT JOIN retired ON retired.series = series.id
 WHERE family.mode = ''
UNION ALL
SELECT retired.series, retired.rest
  FROM retired
  JOIN series ON series.id = retired.series
  JOIN family ON family.id = series.family
 WHERE family.mode = '' AND retired.rest <> 0.0
UNION ALL
SELECT orphan.series, orphan.value
  FROM orphan
  JOIN series ON series.id = orphan.series
  JOIN family ON family.id = series.family
 WHERE family.mode = '';

-- Parts of gauges, Infos and Enums. family, child: what the states of one Enum have in common. mode: how it is shown,
-- `info` and `stateset` for these. pid: NULL for what ended processes left together, which
-- has no part in the `live` modes.
CREATE VIEW gauges (series, family, child, mode, pid, value, timestamp, started) AS
WITH part (series, pid, value, timestamp, started, alive) AS (
    SELECT sample.series, process.pid, sample.value, sample.timestamp, process.started, 1
      FROM sample JOIN process ON process.id = sample.process
     WHERE sample.gauge
    UNION ALL
    SELECT series, NULL, value, timestamp, started, 0 FROM retired
    UNION ALL
    SELECT series, NULL, rest, NULL, started, 0 FROM retired WHERE rest <> 0.0
    UNION ALL
    SELECT series, NULL, value, timestamp, started, 0 FROM orphan
    UNION ALL
    SELECT kept.series, process.pid, kept.value, NULL, process.started, 0
      FROM kept JOIN process ON process.id = kept.process
)
SELECT part.series,
       family.id,
       CASE WHEN family.type IN ('info', 'stateset') THEN series.labels END,
       CASE WHEN family.type IN ('info', 'stateset') THEN family.type ELSE replace(family.mode, 'live', '') END,
       part.pid, part.value, part.timestamp, part.started
  FROM part
  JOIN series ON series.id = part.series
  JOIN family ON family.id = series.family
 WHERE family.mode <> '' AND (part.alive OR family.mode NOT LIKE 'live%');

-- What the processes have together: the sums, the ten modes of gauges, Info and Enum. One row for each series; of the
-- modes `all` and `liveall` one for each series and pid.
CREATE VIEW totals AS
WITH gauge AS MATERIALIZED (SELECT * FROM gauges)
-- A single NaN, which is NULL here, makes a sum NaN, where sum() alone would pass over it. So it does a min and a max.
SELECT series, NULL AS pid, CASE WHEN count(*) = count(value) THEN sum(value) END AS value
  FROM counts
 GROUP BY series
UNION ALL
SELECT series, NULL, CASE WHEN count(*) > count(value) THEN NULL
                          WHEN mode = 'min' THEN min(value)
                          WHEN mode = 'max' THEN max(value)
                          ELSE sum(value) END
  FROM gauge
 WHERE mode IN ('min', 'max', 'sum')
 GROUP BY series, mode
UNION ALL
-- The value that was set last; of a tie, the later process's. A gauge that nobody has set is not shown.
SELECT series, NULL, value
  FROM (SELECT series, value, timestamp,
               row_number() OVER (PARTITION BY series ORDER BY timestamp DESC, started DESC) AS place
          FROM gauge
         WHERE mode = 'mostrecent')
 WHERE place = 1 AND timestamp > 0.0
UNION ALL
-- Where two processes have had one pid, the later one's: of a row that has the max(), SQLite takes the other columns.
SELECT series, pid, value
  FROM (SELECT series, pid, value, max(started)
          FROM gauge
         WHERE mode = 'all' AND pid IS NOT NULL
         GROUP BY series, pid)
UNION ALL
-- The value of an Info, and of each state of an Enum, is the time when a process last said so. What was said last holds.
SELECT series, NULL, max(place = 1)
  FROM (SELECT series, mode,
               row_number() OVER (PARTITION BY family, child ORDER BY value DESC, started DESC, series) AS place
          FROM gauge
         WHERE mode IN ('info', 'stateset'))
 GROUP BY series, mode
HAVING mode = 'stateset' OR max(place = 1);

-- The labels of each series as they are shown, but for the pid of a gauge.
CREATE VIEW labelled (series, family, type, metric, name, variant, labels) AS
SELECT series.id, family.id, family.type, family.name, series.name, series.variant,
       CASE WHEN series.variant = '' THEN series.labels
            WHEN family.type = 'info' THEN json_patch(series.labels, series.variant)
            WHEN family.type = 'stateset' THEN json_patch(series.labels, json_object(family.name, series.variant))
            ELSE json_patch(series.labels, json_object('le', series.variant)) END
  FROM series JOIN family ON family.id = series.family
 WHERE family.id NOT IN (SELECT id FROM figure);

-- For people: what each process has counted. `pid` is NULL for what ended processes left behind.
CREATE VIEW samples AS
WITH part (series, pid, value, timestamp) AS (
    SELECT sample.series, process.pid, sample.value, nullif(sample.timestamp, 0.0)
      FROM sample JOIN process ON process.id = sample.process
    UNION ALL
    SELECT series, NULL, value, nullif(timestamp, 0.0) FROM retired
    UNION ALL
    SELECT series, NULL, value, nullif(timestamp, 0.0) FROM orphan
    UNION ALL
    SELECT kept.series, process.pid, kept.value, NULL
      FROM kept JOIN process ON process.id = kept.process
)
SELECT labelled.name AS metric,
       labelled.labels AS labels,
       part.pid AS pid,
       family.mode AS mode,
       part.value AS value,
       part.timestamp AS timestamp
  FROM part
  JOIN labelled ON labelled.series = part.series
  JOIN family ON family.id = labelled.family;

-- For people: what a scrape would show. A histogram's bucket counts all smaller ones; its count, which no process
-- keeps, is the last bucket.
CREATE VIEW metrics AS
WITH shown AS (
    SELECT labelled.*, totals.pid, series.labels AS own,
           CASE WHEN labelled.type = 'histogram' AND labelled.variant <> ''
                THEN sum(totals.value) OVER (PARTITION BY labelled.family, series.labels, labelled.name
                                             ORDER BY CASE labelled.variant WHEN '' THEN NULL
                                                      WHEN '+Inf' THEN 9e999 WHEN '-Inf' THEN -9e999
                                                      ELSE CAST(labelled.variant AS REAL) END)
                ELSE totals.value END AS value
      FROM totals
      JOIN labelled ON labelled.series = totals.series
      JOIN series ON series.id = totals.series
)
SELECT metric AS family,
       type,
       name AS metric,
       CASE WHEN pid IS NULL THEN labels
            WHEN json_type(labels, '$.pid') IS NULL THEN json_insert(labels, '$.pid', pid)
            ELSE json_insert(labels, '$.process_pid', pid) END AS labels,
       CAST(value AS REAL) AS value
  FROM shown
UNION ALL
SELECT metric, type, metric || '_count', own, value
  FROM shown
 WHERE type = 'histogram' AND variant = '+Inf';
