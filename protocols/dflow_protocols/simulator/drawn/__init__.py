"""Worlds drawn from seeds: what is asked of them, how each is made, many of them, and which of their faults matter."""
