"""Built-in operators, one file each, or one for all that read: from a partition's columns to new columns.

They know no peer, path or clock. Read partition.py first (what an operator is given and gives), then generate.py.
"""
