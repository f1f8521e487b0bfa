"""The commands for operators, which look at a store from outside. Each is a module of its own.

A module has `add`, which describes the command to `argparse`, and `run`, which returns the exit status. The functions
that find out something print nothing, and return dataclasses.
"""
