"""What a daemon answers to clients. Read door.py first: how a request comes in, is gathered for, and answered.

Then what is answered: mesh.py (this node and its members), runs.py (submit, cancel, wait), work.py (tasks, metrics,
samples of all members). request.py checks what a request holds.
"""
