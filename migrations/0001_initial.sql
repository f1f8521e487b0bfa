-- The first schema. Text lives once, in family and series; the rows that change every second are narrow.
--
--   family ──< series ──< sample   (one row for each series of each process that is not settled yet)
--                     ──< retired  (one row for each series: what processes that ended left behind)
--                     ──< kept     (gauges of mode `all` of processes that ended, under their pid)
--                     ──< orphan   (rows of processes that lost their cells and may live)
--                     ──< exemplar (the newest of each series)
--
-- A value that is NULL is NaN: SQLite has no other way to store it.

CREATE TABLE store (
    id         TEXT    NOT NULL,            -- 32 hex digits, also in the header of the cells file
    pair       TEXT    NOT NULL,            -- the same for this database and this cells file, made together
    epoch      INTEGER NOT NULL DEFAULT 0,  -- raised whenever series, or rows of living processes, are deleted
    plan       INTEGER NOT NULL DEFAULT 0,  -- raised whenever families or series come or change
    ended      INTEGER NOT NULL DEFAULT 0,  -- raised whenever what ended processes left has changed
    exemplars  INTEGER NOT NULL DEFAULT 0,  -- raised whenever exemplars come or change
    min_writer INTEGER NOT NULL DEFAULT 1   -- the lowest schema version that may write here
) STRICT;
INSERT INTO store (id, pair) VALUES ('', '');  -- the only row; its ids come when the files are made

CREATE TABLE family (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    mode TEXT NOT NULL                      -- a gauge's multiprocess mode, '' for sums; the newest wins
         CHECK (mode IN ('', 'all', 'min', 'max', 'sum', 'mostrecent',
                         'liveall', 'livemin', 'livemax', 'livesum', 'livemostrecent')),
    help ANY  NOT NULL,                     -- text, or a UTF-8 blob where it holds lone surrogates; the newest wins
    made INTEGER NOT NULL,                  -- when all that came up, nanoseconds since the epoch
    unit TEXT    NOT NULL DEFAULT '',       -- such as seconds; the newest wins
    registered INTEGER NOT NULL DEFAULT 0,  -- 1: it is in the default registry of the process that said so last
    UNIQUE (name, type)
) STRICT;

CREATE TABLE series (
    id     INTEGER PRIMARY KEY,
    family INTEGER NOT NULL REFERENCES family (id),
    name   TEXT    NOT NULL,                -- the sample's name, such as requests_total
    labels TEXT    NOT NULL                 -- a JSON object, keys sorted: those that the app gives to labels()
           CHECK (json_valid(labels)),
    variant TEXT   NOT NULL DEFAULT '',     -- what tells the samples of one name apart: a bucket's upper bound as it
                                            -- is exposed, an Enum's state, an Info's own labels as JSON
    created REAL   NOT NULL DEFAULT 0.0,    -- when the first process made it, seconds since the epoch
    UNIQUE (family, labels, name, variant)
) STRICT;

CREATE TABLE process (
    id            INTEGER PRIMARY KEY,      -- uses of its slot * 4096 + its slot: never given twice
    pid           TEXT    NOT NULL,         -- what the process identifier gave; os.getpid() by default
    os_pid        INTEGER NOT NULL,
    pid_namespace INTEGER NOT NULL,         -- inode of /proc/self/ns/pid, 0 where there is none
    started       INTEGER NOT NULL,         -- nanoseconds since the epoch
    journal       INTEGER NOT NULL,         -- bytes of its journal that are rows by now
    died          INTEGER                   -- nanoseconds since the epoch, once settled
) STRICT;

-- The newest process of each slot of the cells file whose rows are settled.
CREATE TABLE slot (
    slot    INTEGER PRIMARY KEY,
    settled INTEGER NOT NULL
) STRICT;

-- The logical key (metric, labels, pid, mode): a series is (metric, labels), its family has one mode.
CREATE TABLE sample (
    cell      INTEGER PRIMARY KEY,          -- where the value is in the cells file
    series    INTEGER NOT NULL REFERENCES series (id),
    process   INTEGER NOT NULL REFERENCES process (id),
    value     REAL    DEFAULT 0.0,
    timestamp REAL,                         -- seconds since the epoch; only for mostrecent gauges, 0.0 until set
    UNIQUE (process, series)
) STRICT;

CREATE TABLE retired (
    series    INTEGER PRIMARY KEY REFERENCES series (id),
    value     REAL,
    rest      REAL NOT NULL DEFAULT 0.0,    -- what was rounded off when the value was added up, to be added to it
    timestamp REAL,
    started   INTEGER NOT NULL              -- of the process a mostrecent value came from
) STRICT;

CREATE TABLE kept (
    process INTEGER NOT NULL REFERENCES process (id) ON DELETE CASCADE,
    series  INTEGER NOT NULL REFERENCES series (id),
    value   REAL,
    PRIMARY KEY (process, series)
) STRICT, WITHOUT ROWID;

-- What processes had in rows when the files were mended: a process that lives brings its values to the new files,
-- says so in its journal, and these rows go; of one that does not they stay.
CREATE TABLE orphan (
    process   INTEGER NOT NULL,
    series    INTEGER NOT NULL REFERENCES series (id),
    value     REAL,
    timestamp REAL,
    started   INTEGER NOT NULL,
    PRIMARY KEY (process, series)
) STRICT, WITHOUT ROWID;

-- Cells of living processes whose series were removed, until they are marked in the cells file.
CREATE TABLE removed (
    cell    INTEGER PRIMARY KEY,
    process INTEGER NOT NULL
) STRICT;

-- The newest exemplar of each series, of whatever process; none that is older than ten minutes is shown.
CREATE TABLE exemplar (
    series    INTEGER PRIMARY KEY REFERENCES series (id) ON DELETE CASCADE,
    labels    TEXT NOT NULL CHECK (json_valid(labels)),
    value     REAL,
    timestamp REAL NOT NULL,                -- seconds since the epoch
    changed   INTEGER NOT NULL              -- what store.exemplars was raised to when this came
) STRICT;

-- What sqlmetrics counts about itself, which is left out of the views below.
CREATE VIEW figure AS
SELECT id FROM family WHERE name IN ('sqlmetrics_errors', 'sqlmetrics_flush_seconds', 'sqlmetrics_scrape_seconds');

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
SELECT series.name AS metric,
       CASE WHEN series.variant = '' THEN series.labels
            WHEN family.type = 'info' THEN json_patch(series.labels, series.variant)
            WHEN family.type = 'stateset' THEN json_insert(series.labels, '$."' || family.name || '"', series.variant)
            ELSE json_insert(series.labels, '$.le', series.variant) END AS labels,
       part.pid AS pid,
       family.mode AS mode,
       part.value AS value,
       part.timestamp AS timestamp
  FROM part
  JOIN series ON series.id = part.series
  JOIN family ON family.id = series.family
 WHERE family.id NOT IN (SELECT id FROM figure);

-- For people: what a scrape would show.
CREATE VIEW metrics AS
WITH part (series, pid, value, timestamp, started) AS (
    SELECT sample.series, process.pid, sample.value, sample.timestamp, process.started
      FROM sample JOIN process ON process.id = sample.process
    UNION ALL
    SELECT series, NULL, value, timestamp, started FROM retired
    UNION ALL
    SELECT series, NULL, rest, timestamp, started FROM retired WHERE rest <> 0.0
    UNION ALL
    SELECT series, NULL, value, timestamp, started FROM orphan
    UNION ALL
    SELECT kept.series, process.pid, kept.value, NULL, process.started
      FROM kept JOIN process ON process.id = kept.process
),
total (series, pid, value) AS (
    -- Sums: a single NaN makes the sum NaN, where sum() alone would pass over it.
    SELECT part.series, NULL, CASE WHEN count(*) = count(value) THEN sum(value) END
      FROM part JOIN series ON series.id = part.series JOIN family ON family.id = series.family
     WHERE family.mode IN ('', 'sum', 'livesum')
     GROUP BY part.series
    UNION ALL
    SELECT part.series, NULL, CASE WHEN count(*) = count(value) THEN min(value) END
      FROM part JOIN series ON series.id = part.series JOIN family ON family.id = series.family
     WHERE family.mode IN ('min', 'livemin')
     GROUP BY part.series
    UNION ALL
    SELECT part.series, NULL, CASE WHEN count(*) = count(value) THEN max(value) END
      FROM part JOIN series ON series.id = part.series JOIN family ON family.id = series.family
     WHERE family.mode IN ('max', 'livemax')
     GROUP BY part.series
    UNION ALL
    SELECT series, NULL, value FROM (
        SELECT part.series, value,
               row_number() OVER (PARTITION BY part.series ORDER BY timestamp DESC, started DESC) AS place
          FROM part JOIN series ON series.id = part.series JOIN family ON family.id = series.family
         WHERE family.mode IN ('mostrecent', 'livemostrecent') AND timestamp > 0.0)
     WHERE place = 1
    UNION ALL
    SELECT series, pid, value FROM (
        SELECT part.series, pid, value,
               row_number() OVER (PARTITION BY part.series, pid ORDER BY started DESC) AS place
          FROM part JOIN series ON series.id = part.series JOIN family ON family.id = series.family
         WHERE family.mode IN ('all', 'liveall'))
     WHERE place = 1
),
shown (family, type, name, labels, variant, pid, value) AS (
    SELECT family.id, family.type, series.name, series.labels, series.variant, total.pid,
           CASE family.type
               WHEN 'histogram' THEN CASE series.variant WHEN '' THEN total.value
                   ELSE sum(total.value) OVER (
                       PARTITION BY series.family, series.name, series.labels
                       ORDER BY CASE series.variant WHEN '' THEN NULL WHEN '+Inf' THEN 9e999 WHEN '-Inf' THEN -9e999
                                ELSE CAST(series.variant AS REAL) END) END
               -- Of an Info and of the states of an Enum, the one that was said last.
               WHEN 'info' THEN row_number() OVER newest = 1
               WHEN 'stateset' THEN row_number() OVER newest = 1
               ELSE total.value END
      FROM total
      JOIN series ON series.id = total.series
      JOIN family ON family.id = series.family
    WINDOW newest AS (PARTITION BY series.family, series.labels ORDER BY total.value DESC, series.id)
)
SELECT family.name AS family,
       family.type AS type,
       shown.name AS metric,
       CASE WHEN shown.type = 'histogram' AND variant <> '' THEN json_insert(labels, '$.le', variant)
            WHEN shown.type = 'stateset' THEN json_insert(labels, '$."' || family.name || '"', variant)
            WHEN shown.type = 'info' THEN json_patch(labels, variant)
            WHEN pid IS NULL THEN labels
            WHEN json_type(labels, '$.pid') IS NULL THEN json_insert(labels, '$.pid', pid)
            ELSE json_insert(labels, '$.process_pid', pid) END AS labels,
       CAST(value AS REAL) AS value
  FROM shown JOIN family ON family.id = shown.family
 WHERE family.id NOT IN (SELECT id FROM figure)
   AND (shown.type <> 'info' OR value)
UNION ALL
-- A histogram has no cell for its count: it is the last bucket.
SELECT family.name, family.type, family.name || '_count', labels, value
  FROM shown JOIN family ON family.id = shown.family
 WHERE variant = '+Inf' AND family.type = 'histogram';

-- For people: who holds a part of the store, and who is remembered for its `all` gauges.
CREATE VIEW processes AS
SELECT process.pid AS pid,
       process.os_pid AS os_pid,
       CASE WHEN process.died IS NULL THEN 'live' ELSE 'dead' END AS state,
       datetime(process.started / 1000000000, 'unixepoch') AS started,
       datetime(process.died / 1000000000, 'unixepoch') AS died,
       (SELECT count(*) FROM sample JOIN series ON series.id = sample.series
         WHERE sample.process = process.id AND series.family NOT IN (SELECT id FROM figure))
         + (SELECT count(*) FROM kept WHERE kept.process = process.id) AS rows
  FROM process;
