"""Watching a world: what must hold at each action of a node, and over time. One checker a promise, or a few seen at one
place; `checker.py` says what they have, `../invariants.py` what each holds, `../drawn/watch.py` lists them."""
