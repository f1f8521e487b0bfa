"""Answers scrapes: by a query, from whose result it makes families and text."""
