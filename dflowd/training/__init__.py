"""Training as tasks, in numpy, so that every engine reduces and updates with the same bits.

Read accumulate.py first (the fixed tree of gradients), then optimizer.py and update.py (what every trainer applies);
checkpoint.py writes parameters where others can open them.
"""
