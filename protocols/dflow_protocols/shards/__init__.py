"""Shards: who holds which, how they are cut, fetched and given space."""
