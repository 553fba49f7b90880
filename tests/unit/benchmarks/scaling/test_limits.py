"""A size that a machine does not carry is not measured: it would tell of the machine."""

from __future__ import annotations

import os

import psutil

from benchmarks.scaling.limits import MOST_CPU, too_many
from benchmarks.scaling.measured import Measured

CORES = len(os.sched_getaffinity(0))


def measured(nodes: int, cpu_s: float, memory_bytes: int = 0) -> Measured:
    return Measured("dflowd", "siirl-table1", nodes, 4, 1.0, 128, cpu_s, memory_bytes=memory_bytes)


def test_the_first_size_is_measured() -> None:
    assert too_many(8, None) == ""


def test_a_size_whose_processes_need_all_cores_is_passed_over() -> None:
    """By what a smaller one took; the reason has the figures."""
    before = measured(2, cpu_s=0.3 * MOST_CPU * CORES)
    assert too_many(4, before) == ""
    assert "cores do not carry it" in too_many(8, before)


def test_a_size_that_does_not_fit_into_memory_is_passed_over() -> None:
    free = psutil.virtual_memory().available
    assert "memory does not carry it" in too_many(4, measured(2, cpu_s=0.0, memory_bytes=free))
    assert too_many(4, measured(2, cpu_s=0.0, memory_bytes=free // 8)) == ""
