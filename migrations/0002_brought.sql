-- Files that were deleted may be made anew by a process that has nothing of them, while another one still has the old
-- database open. That one brings what ended processes had left there, once; see rows/bring.py.

-- When there was nothing that these rows could be made of, in nanoseconds since the epoch.
ALTER TABLE store ADD COLUMN began INTEGER NOT NULL DEFAULT 0;

-- The ids of the stores from which it was brought.
CREATE TABLE brought (store TEXT PRIMARY KEY) STRICT;
