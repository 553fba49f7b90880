"""Built-in operators, one file each: from a partition's columns to new columns. They know no peer, path or clock.

Read partition.py first (what an operator is given and gives), then generate.py and the stages that follow it.
"""
