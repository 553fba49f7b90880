"""Worlds drawn at random: sizes, noise, losses, crashes, stalls, cuts, joiners and leavers all at once."""

from __future__ import annotations

import pytest

from dflow_protocols.simulator.drawn.swarm import live_through

SEEDS = 40
SLOW_SEEDS = 1000


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_drawn_world_keeps_every_promise(seed: int) -> None:
    """What nobody thought of: nothing mixed, one chain, every run ends, all is freed."""
    live_through(seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tenth", range(10))
def test_very_many_drawn_worlds_keep_every_promise(tenth: int) -> None:
    """The same for many more of them."""
    for seed in range(SEEDS + tenth, SEEDS + SLOW_SEEDS, 10):
        live_through(seed)
