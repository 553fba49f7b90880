"""Data files as entries: read by engines to work with them, and by clients to tell mistakes early.

Read entry.py first (what an entry is), then rows.py (how each format says one); parts.py finds the files that a key
names. Files are opened, and folders listed, by who asks.
"""
