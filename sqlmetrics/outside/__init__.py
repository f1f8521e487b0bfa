"""Looks at a store from outside, for commands and the exporter. Nothing here prints, or changes a byte of the store."""
