"""Watching a world: what must hold at each action of a node, and over time. One checker a promise, or a few that are
seen at one place; `checker.py` says what they have, `watch.py` lists them, `../invariants.py` says what each holds."""
