"""What monitoring asks of a daemon, over plain HTTP: `/metrics` for Prometheus, `/healthz` for who looks whether it is
well. Off unless `observe.listen` is set.

families.py is what is told; server.py answers, within bounds; opening.py makes both. docs/monitoring.md is the table.
"""
