"""Data: which entry a group gets, as a function of the spec's names alone, so that every node picks alike.

Read sources.py first (where entries come from), then order.py (which one is next, and what is held out) and mixture.py
(several data sets as one); contract.py says what stages ask of either. prompts.py
turns an entry into text, demonstrations.py into what is trained on, columns.py shards into arrays.
"""
