"""A store as it is seen from outside, for commands and the exporter: nothing here prints, or changes a byte."""
