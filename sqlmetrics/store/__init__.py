"""The store of a process: which one is installed, its flushes, removals and resets, and the way over to new files."""
