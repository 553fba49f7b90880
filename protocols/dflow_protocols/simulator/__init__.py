"""Deterministic simulation: whole nodes in virtual time, one seed a world: `dflow sim`.

Read world.py first (what drives a node), then faults/ (what can break, when and how) and goals.py (what must hold in
the end). invariants.py checks what is made from what, watching/ each action and the time between. What a node stands on
is pretended in model/: time, network, bulk lane, disk, store, slots, engines and the provenance of every shard. drawn/
draws worlds from seeds, lives through many, and finds the fewest faults that break a promise; mutations/ breaks the
rules.
"""
