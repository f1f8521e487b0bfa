"""The folder that `sqlmetrics run` puts on ``PYTHONPATH``.

Nobody imports this file. With it, type checkers know the modules here from the packages that they are called like.
"""
