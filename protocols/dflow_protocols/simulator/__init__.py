"""Deterministic simulation: whole nodes in virtual time, one seed a world: `dflow sim`.

Read world.py first (what drives a node), then faults.py and inject.py (what can break, and how) and goals.py (what must
hold in the end). invariants.py checks what is made from what, swarm.py draws worlds from seeds, drawing.py what breaks
in them, and survey.py lives through many. What a node stands on is pretended in model/: time, network, bulk lane, disk,
store, slots, engines and the provenance of every shard.
"""
