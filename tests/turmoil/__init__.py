"""Everything at once: processes that count, end, fork and remove under all kinds of trouble, and an account of it.

The account (`ledger`) is a file of its own, so it does not share the store's faults.
By hand: `PYTHONPATH=tests python -m turmoil --help`.
"""
