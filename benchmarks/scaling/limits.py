"""Where this machine stops: how many nodes' processes it carries without the measurement becoming one of itself."""

from __future__ import annotations

import os

import psutil

from benchmarks.scaling.measured import Measured

MOST_CPU = 0.8  # of all cores' time: beyond it tasks wait for processors that hosts of their own would have
MOST_MEMORY = 0.8  # of what is free


def too_many(nodes: int, before: Measured | None) -> str:
    """Why so many nodes are not measured here, by what a smaller mesh of the same system and work took; nothing where
    they are."""
    if before is None or nodes <= before.nodes:
        return ""
    times, cores = nodes / before.nodes, len(os.sched_getaffinity(0))
    of_cores = before.cores * times / cores
    if of_cores > MOST_CPU:
        took = f"{before.cpu_s / before.nodes:.2f} processor seconds a node and step of {before.step_s:.2f} s"
        return f"{cores} cores do not carry it: at {took}, as {before.nodes} took, it would need {of_cores:.0%} of them"
    wanted, free = before.memory_bytes * times, psutil.virtual_memory().available
    if wanted > MOST_MEMORY * free:
        return f"memory does not carry it: it would take {wanted / 1e9:.1f} GB of {free / 1e9:.1f} GB that are free"
    return ""
