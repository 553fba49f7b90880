"""What travels between daemons, and between a client and a daemon. Read `frame.py` first, then `codec.py`.

Messages are frozen dataclasses: `gossip.py` (membership), `steps.py` (runs and steps), `client.py` (requests). Bytes
that came in become one of them, or a WireError that names the field; nothing in between reaches a machine.
`protocols/README.md` is the specification, `protocols/vectors/` has one worked message of each kind.
"""
