"""Shards: who holds which (holdings.py), how they are fetched (transfer.py, credit.py) and given space (space.py)."""
