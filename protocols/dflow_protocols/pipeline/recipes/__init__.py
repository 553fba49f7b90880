"""Algorithms by name: what `algorithm: NAME` in a spec stands for. Read catalog.py first, then expansion.py."""
