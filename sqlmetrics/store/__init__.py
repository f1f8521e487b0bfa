"""The one place where the parts of a store meet in a process: which one is installed, its flushes, and its files."""
