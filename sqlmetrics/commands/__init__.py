"""What an operator needs: commands that look at a store from outside, each in a module of its own.

A module has `add`, which describes the command to `argparse`, and `run`, which returns the exit status. What a command
finds out is made by functions that print nothing, and return dataclasses.
"""
