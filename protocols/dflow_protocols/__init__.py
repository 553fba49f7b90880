"""The mesh's protocols as pure state machines: no sockets, no clock, no global chance.

Read machine.py (the shape of all of them), then work.py (what a slot is asked), then node.py (all wired as one).
The wire is described in protocols/README.md; the simulator that breaks all of this is simulator/world.py.
"""
