"""What a daemon answers to clients. Read dispatch.py first: how a request comes in, is gathered for, and answered.

Then what is answered: mesh.py (this node and its members), runs.py (submit, cancel, wait), and of all members
together work.py (tasks, metrics, samples), events.py (reports), shards.py (shards), checkpoints.py (files of weights).
request.py checks what a request holds.
"""
