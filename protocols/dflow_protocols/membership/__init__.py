"""Who is believed alive: SWIM (Das, Gupta, Motivala 2002) with Lifeguard (arXiv 1707.00788).

Read `machine.py` first: events in, actions out. `table.py` keeps what is believed, `probe.py` is the failure detector,
`bootstrap.py` says how a mesh is found and found again. The arithmetic stands apart in `suspicion.py`, `awareness.py`,
`broadcast.py` and `claim.py`; a site's pace in `timing.py`.
"""
