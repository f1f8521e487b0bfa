"""The cells file: what processes share, which of them owns which part, and what each has announced."""
