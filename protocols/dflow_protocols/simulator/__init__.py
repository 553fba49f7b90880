"""Whole nodes in virtual time, one seed a world: `python -m dflow_protocols.simulator SEED`.

Read world.py first (what drives a node), then faults.py (what can break) and goals.py (what must hold in the end).
provenance.py and work.py pretend engines and shards, invariants.py checks what is made from what, swarm.py draws
worlds from seeds.
"""
