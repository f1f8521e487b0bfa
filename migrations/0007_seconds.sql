-- One unit for times: every time in these tables is REAL, seconds since the epoch, as Prometheus has it and as the cells
-- do. NULL alone means never, or not known. Such a double tells moments apart that are 250 ns from each other: of two
-- processes that started closer together, a scrape takes the one with the greater id for the later one. (The journals in
-- the cells file go on in whole nanoseconds.)
--
-- No table is called almost as a view is: `process` becomes `instance`, as one process may have several slots, one
-- after the other or in several value classes; `sample` becomes `cell_copy`, for that is what it has.
--
--   family ──< series ──< cell_copy (one row for each series of each process that is not settled yet)
--                     ──< retired   (one row for each series: what processes that ended left behind)
--                     ──< kept      (gauges of mode `all` of processes that ended, under their pid)
--                     ──< orphan    (rows of processes that lost their cells and may live)
--                     ──< exemplar  (the newest of each series)
--
-- References are declared for `PRAGMA foreign_key_check`, which looks up parents by their keys. Nobody enforces them as
-- rows are written, so nothing is deleted in cascades, and no child needs an index for it.

DROP VIEW processes;
DROP VIEW metrics;
DROP VIEW samples;
DROP VIEW labelled;
DROP VIEW totals;
DROP VIEW gauges;
DROP VIEW counts;
DROP VIEW figure;

-- Tables are made anew as https://www.sqlite.org/lang_altertable.html#otheralter says. Seconds and fractions are added up
-- so that nothing is rounded before the last step: a double does not hold all digits of a time in nanoseconds.

CREATE TABLE new_store (
    only       INTEGER PRIMARY KEY CHECK (only = 1),  -- there is one row
    id         TEXT    NOT NULL,            -- 32 hex digits, also in the header of the cells file
    pair       TEXT    NOT NULL,            -- the same for this database and this cells file, made together
    epoch      INTEGER NOT NULL DEFAULT 0,  -- raised whenever series, or rows of living processes, are deleted
    plan       INTEGER NOT NULL DEFAULT 0,  -- raised whenever families or series come or change
    ended      INTEGER NOT NULL DEFAULT 0,  -- raised whenever what ended processes left has changed
    exemplars  INTEGER NOT NULL DEFAULT 0,  -- raised whenever exemplars come or change
    min_writer INTEGER NOT NULL,            -- the lowest schema version that may write here
    began      REAL                         -- when there was nothing that these rows could be made of
) STRICT;
INSERT INTO new_store (id, pair, epoch, plan, ended, exemplars, min_writer, began)
SELECT id, pair, epoch, plan, ended, exemplars, 7, nullif(began / 1000000000 + began % 1000000000 / 1e9, 0.0)
  FROM store;
DROP TABLE store;
ALTER TABLE new_store RENAME TO store;

CREATE TABLE new_family (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    mode TEXT NOT NULL                      -- a gauge's multiprocess mode, '' for sums; the newest wins
         CHECK (mode IN ('', 'all', 'min', 'max', 'sum', 'mostrecent',
                         'liveall', 'livemin', 'livemax', 'livesum', 'livemostrecent')),
    help ANY  NOT NULL,                     -- text, or a UTF-8 blob where it holds lone surrogates; the newest wins
    made REAL,                              -- when all that came up; NULL: nobody has said it yet
    unit TEXT NOT NULL DEFAULT '',          -- such as seconds; the newest wins
    registered INTEGER NOT NULL DEFAULT 0,  -- 1: it is in the default registry of the process that said so last
    UNIQUE (name, type)
) STRICT;
INSERT INTO new_family (id, name, type, mode, help, made, unit, registered)
SELECT id, name, type, mode, help, nullif(made / 1000000000 + made % 1000000000 / 1e9, 0.0), unit, registered
  FROM family;
DROP TABLE family;
ALTER TABLE new_family RENAME TO family;

CREATE TABLE new_series (
    id     INTEGER PRIMARY KEY,
    family INTEGER NOT NULL REFERENCES family (id),
    name   TEXT    NOT NULL,                -- the sample's name, such as requests_total
    labels TEXT    NOT NULL                 -- a JSON object, keys sorted: those that the app gives to labels()
           CHECK (json_valid(labels)),
    variant TEXT   NOT NULL DEFAULT '',     -- what tells the samples of one name apart: a bucket's upper bound as it
                                            -- is exposed, an Enum's state, an Info's own labels as JSON
    created REAL   NOT NULL,                -- when the first process made it
    UNIQUE (family, labels, name, variant)
) STRICT;
INSERT INTO new_series (id, family, name, labels, variant, created)
SELECT id, family, name, labels, variant, created FROM series;
DROP TABLE series;
ALTER TABLE new_series RENAME TO series;

CREATE TABLE instance (
    id            INTEGER PRIMARY KEY,      -- uses of its slot * 4096 + its slot: never given twice
    pid           TEXT    NOT NULL,         -- what the process identifier gave; os.getpid() by default
    os_pid        INTEGER NOT NULL,
    pid_namespace INTEGER NOT NULL,         -- inode of /proc/self/ns/pid, 0 where there is none
    started       REAL,                     -- NULL where what it says of itself makes no sense
    journal       INTEGER NOT NULL,         -- bytes of its journal that are rows by now
    died          REAL,                     -- once settled
    flushed       REAL,                     -- all that it had counted by then is in rows
    partial       INTEGER NOT NULL DEFAULT 0  -- 1: a later flush has written a part of what it has to write
) STRICT;
INSERT INTO instance (id, pid, os_pid, pid_namespace, started, journal, died, flushed, partial)
SELECT id, pid, os_pid, pid_namespace, nullif(started / 1000000000 + started % 1000000000 / 1e9, 0.0), journal,
       died / 1000000000 + died % 1000000000 / 1e9, flushed / 1000000000 + flushed % 1000000000 / 1e9, partial
  FROM process;
DROP TABLE process;

-- The logical key (metric, labels, pid, mode): a series is (metric, labels), its family has one mode.
CREATE TABLE cell_copy (
    cell      INTEGER PRIMARY KEY,          -- where the value is in the cells file
    series    INTEGER NOT NULL REFERENCES series (id),
    process   INTEGER NOT NULL REFERENCES instance (id),
    value     REAL    DEFAULT 0.0,
    gauge     INTEGER NOT NULL,             -- 1: of a gauge, an Info or an Enum: a zero counts, too
    stamped   INTEGER NOT NULL,             -- 1: the cell before it has the time when it was set, 0.0 until it is
    timestamp REAL,                         -- that time; only mostrecent gauges have one
    UNIQUE (process, series)
) STRICT;
INSERT INTO cell_copy (cell, series, process, value, gauge, stamped, timestamp)
SELECT cell, series, process, value, gauge, timestamp IS NOT NULL, nullif(timestamp, 0.0) FROM sample ORDER BY cell;
DROP TABLE sample;
CREATE INDEX gauge_cell ON cell_copy (cell) WHERE gauge;

CREATE TABLE new_retired (
    series    INTEGER PRIMARY KEY REFERENCES series (id),
    value     REAL,
    rest      REAL NOT NULL DEFAULT 0.0,    -- what was rounded off when the value was added up, to be added to it
    timestamp REAL,                         -- when a mostrecent gauge was set
    started   REAL                          -- of the process a mostrecent value came from
) STRICT;
INSERT INTO new_retired (series, value, rest, timestamp, started)
SELECT series, value, rest, nullif(timestamp, 0.0), nullif(started / 1000000000 + started % 1000000000 / 1e9, 0.0)
  FROM retired;
DROP TABLE retired;
ALTER TABLE new_retired RENAME TO retired;

CREATE TABLE new_kept (
    process INTEGER NOT NULL REFERENCES instance (id),
    series  INTEGER NOT NULL REFERENCES series (id),
    value   REAL,
    PRIMARY KEY (process, series)
) STRICT, WITHOUT ROWID;
INSERT INTO new_kept (process, series, value) SELECT process, series, value FROM kept;
DROP TABLE kept;
ALTER TABLE new_kept RENAME TO kept;

-- What processes had in rows when the files were mended: a process that lives brings its values to the new files,
-- says so in its journal, and these rows go; of one that does not they stay.
CREATE TABLE new_orphan (
    process   INTEGER NOT NULL,
    series    INTEGER NOT NULL REFERENCES series (id),
    value     REAL,
    timestamp REAL,
    started   REAL,
    PRIMARY KEY (process, series)
) STRICT, WITHOUT ROWID;
INSERT INTO new_orphan (process, series, value, timestamp, started)
SELECT process, series, value, nullif(timestamp, 0.0), nullif(started / 1000000000 + started % 1000000000 / 1e9, 0.0)
  FROM orphan;
DROP TABLE orphan;
ALTER TABLE new_orphan RENAME TO orphan;

CREATE TABLE new_exemplar (
    series    INTEGER PRIMARY KEY REFERENCES series (id),
    labels    TEXT NOT NULL CHECK (json_valid(labels)),
    value     REAL,
    timestamp REAL NOT NULL,
    changed   INTEGER NOT NULL              -- what store.exemplars was raised to when this came
) STRICT;
INSERT INTO new_exemplar (series, labels, value, timestamp, changed)
SELECT series, labels, value, timestamp, changed FROM exemplar;
DROP TABLE exemplar;
ALTER TABLE new_exemplar RENAME TO exemplar;

-- What sqlmetrics counts about itself, which is left out of the views for people.
CREATE VIEW figure AS
SELECT id FROM family
 WHERE name IN ('sqlmetrics_errors', 'sqlmetrics_flush_seconds', 'sqlmetrics_scrape_seconds',
                'sqlmetrics_series_limited');

-- Parts of counters, summaries and histograms. Every series has one: what ended processes left of it, or zero.
CREATE VIEW counts (series, value) AS
SELECT series, value FROM cell_copy WHERE NOT gauge
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
-- has no part in the `live` modes. timestamp: NULL until it is set.
CREATE VIEW gauges (series, family, child, mode, pid, value, timestamp, started) AS
WITH part (series, pid, value, timestamp, started, alive) AS (
    SELECT cell_copy.series, instance.pid, cell_copy.value, cell_copy.timestamp, instance.started, 1
      FROM cell_copy JOIN instance ON instance.id = cell_copy.process
     WHERE cell_copy.gauge
    UNION ALL
    SELECT series, NULL, value, timestamp, started, 0 FROM retired
    UNION ALL
    SELECT series, NULL, rest, NULL, started, 0 FROM retired WHERE rest <> 0.0
    UNION ALL
    SELECT series, NULL, value, timestamp, started, 0 FROM orphan
    UNION ALL
    SELECT kept.series, instance.pid, kept.value, NULL, instance.started, 0
      FROM kept JOIN instance ON instance.id = kept.process
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
WITH part AS MATERIALIZED (SELECT * FROM gauges)
-- A single NaN, which is NULL here, makes a sum NaN, where sum() alone would pass over it. So it does a min and a max.
SELECT series, NULL AS pid, CASE WHEN count(*) = count(value) THEN sum(value) END AS value
  FROM counts
 GROUP BY series
UNION ALL
SELECT series, NULL, CASE WHEN count(*) > count(value) THEN NULL
                          WHEN mode = 'min' THEN min(value)
                          WHEN mode = 'max' THEN max(value)
                          ELSE sum(value) END
  FROM part
 WHERE mode IN ('min', 'max', 'sum')
 GROUP BY series, mode
UNION ALL
-- The value that was set last; of a tie, the later process's. A gauge that nobody has set is not shown.
SELECT series, NULL, value
  FROM (SELECT series, value, timestamp,
               row_number() OVER (PARTITION BY series ORDER BY timestamp DESC, started DESC) AS place
          FROM part
         WHERE mode = 'mostrecent')
 WHERE place = 1 AND timestamp IS NOT NULL
UNION ALL
-- Where two processes have had one pid, the later one's: of a row that has the max(), SQLite takes the other columns.
SELECT series, pid, value
  FROM (SELECT series, pid, value, max(started)
          FROM part
         WHERE mode = 'all' AND pid IS NOT NULL
         GROUP BY series, pid)
UNION ALL
-- The value of an Info, and of each state of an Enum, is the time when a process last said so. What was said last holds.
SELECT series, NULL, max(place = 1)
  FROM (SELECT series, mode,
               row_number() OVER (PARTITION BY family, child ORDER BY value DESC, started DESC, series) AS place
          FROM part
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
    SELECT cell_copy.series, instance.pid, cell_copy.value, cell_copy.timestamp
      FROM cell_copy JOIN instance ON instance.id = cell_copy.process
    UNION ALL
    SELECT series, NULL, value, timestamp FROM retired
    UNION ALL
    SELECT series, NULL, value, timestamp FROM orphan
    UNION ALL
    SELECT kept.series, instance.pid, kept.value, NULL
      FROM kept JOIN instance ON instance.id = kept.process
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

-- For people: who holds a part of the store, and who is remembered for its `all` gauges. A process is alive or dead by
-- the kernel's word, which SQL cannot ask: until somebody has settled it, it is `unsettled`. flushed: the last sign of
-- life.
CREATE VIEW processes AS
SELECT instance.pid AS pid,
       instance.os_pid AS os_pid,
       CASE WHEN instance.died IS NULL THEN 'unsettled' ELSE 'remembered' END AS state,
       datetime(instance.started, 'unixepoch') AS started,
       datetime(instance.died, 'unixepoch') AS died,
       (SELECT count(*) FROM cell_copy JOIN series ON series.id = cell_copy.series
         WHERE cell_copy.process = instance.id AND series.family NOT IN (SELECT id FROM figure))
         + (SELECT count(*) FROM kept WHERE kept.process = instance.id) AS rows,
       datetime(instance.flushed, 'unixepoch') AS flushed,
       CASE WHEN instance.died IS NOT NULL THEN NULL
            WHEN NOT instance.partial THEN 0.0
            ELSE max(round((julianday('now') - 2440587.5) * 86400.0
                           - ifnull(instance.flushed, instance.started), 3), 0.0) END AS behind
  FROM instance;
