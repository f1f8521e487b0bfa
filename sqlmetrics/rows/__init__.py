"""The SQLite side: connections, flushes, deaths and folds, and the care of the files."""
