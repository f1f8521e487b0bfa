"""The cells file: what processes share, who owns which part of it, and what each has announced."""
